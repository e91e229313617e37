//! Why a layer could not be unpacked.

use std::io;

/// Most bytes of a name that an error repeats: a name can have a mebibyte.
const SHOWN: usize = 256;

/// Why a layer could not be unpacked. Messages are bounded and hold no control characters, whatever names the
/// layer has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The layer's bytes could not be read or decompressed; a checksum that is wrong is found here, too.
    #[error("reading the layer after {uncompressed} uncompressed bytes: {source}")]
    Read {
        /// Uncompressed bytes that came before.
        uncompressed: u64,
        /// What the reader or the decompressor said.
        source: io::Error,
    },
    /// The layer is not a well-formed tar archive.
    #[error("malformed tar archive at byte {offset}: {reason}")]
    Archive {
        /// Where in the uncompressed stream: just after the place in question.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry asks for what cannot or must not be done.
    #[error("entry {path}: {reason}")]
    Entry {
        /// The entry's name.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file system refused.
    #[error("entry {path}: {operation}: {source}")]
    Io {
        /// The entry's name.
        path: String,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A hard link could not be made.
    #[error("entry {path}: hard link to {target}: {source}")]
    HardLink {
        /// The entry's name.
        path: String,
        /// What it leads to.
        target: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The target directory cannot be used.
    #[error("unpack target {path}: {source}")]
    Target {
        /// The directory.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The layer is beyond a bound of [`Limits`](super::options::Limits).
    #[error("the layer's {what} is above the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

impl UnpackError {
    pub(super) fn entry(path: &[u8], reason: &'static str) -> Self {
        Self::Entry { path: shown(path), reason }
    }

    pub(super) fn io(path: &[u8], operation: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { path: shown(path), operation, source: source.into() }
    }
}

/// A name for people: quoted, escaped and cut.
pub(crate) fn shown(name: &[u8]) -> String {
    if name.len() <= SHOWN {
        return format!("\"{}\"", name.escape_ascii());
    }
    format!("\"{}…\" ({} bytes)", name[..SHOWN].escape_ascii(), name.len())
}
