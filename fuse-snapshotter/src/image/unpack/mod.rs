//! Unpacks one image layer into a directory, in the form that overlayfs stacks.
//!
//! This is the eager path: a layer that cannot be, or need not be, loaded lazily. [`unpack`] streams a layer (a
//! tar archive, mostly compressed) once, writes its files as they pass, and hashes the whole uncompressed
//! stream on the way, so that the caller can hold the result against the image configuration's `diff_id`.
//!
//! # What a layer becomes
//!
//! The result is what containerd's overlay applier makes of a layer in a directory of its own, with the
//! corner cases decided as [`crate::content::tree`] decides them, so that a layer looks the same whichever way it
//! was loaded:
//!
//! * Names are cleaned as if they were absolute: `a//b`, `./a/b`, `/a/b` and `../../a/b` are the same file.
//!   `./` stands for the target itself.
//! * A later entry replaces an earlier one of the same name. A directory that comes again keeps its
//!   children and takes the later attributes.
//! * `.wh.X` and a character device 0:0 named `X` hide what lower layers have under the name `X`; they never
//!   hide an `X` of the layer itself, wherever that stands in the archive. Alone they become a character
//!   device 0:0; where the layer has a directory `X`, that becomes opaque. `.wh..wh..opq` makes its
//!   directory opaque. Other `.wh..wh.*` are bookkeeping of aufs and are left out.
//! * Missing parents are created, 0755 and owned by root. **Links are never followed**: an entry below a
//!   symbolic link, or below anything else that is not a directory, replaces it with a directory. (containerd
//!   follows such links within the layer. Layers that were diffed from a file system have no such entries,
//!   and overlayfs could not merge them by name.)
//! * Hard links lead to entries of the same layer, and have the attributes of what they lead to.
//! * PAX records `trusted.overlay.*` and `user.overlay.*` are dropped: these mark what overlayfs itself did,
//!   and a layer could use them to reach outside of itself (`redirect`, `metacopy`).
//! * PAX global headers are ignored, as Go's `archive/tar` and containerd ignore them, and entries of unknown
//!   type are skipped with a warning.
//!
//! # Safety against hostile archives
//!
//! All work is done relative to directory descriptors, which are reached with `openat2(2)` and
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, or name by name with `O_NOFOLLOW`; files are created with `O_EXCL`.
//! So nothing outside of the target can be reached whatever the archive says. Sizes are bounded before
//! anything is allocated ([`Limits`]).
//!
//! # How it is put together
//!
//! `format` decompresses, `stream` counts and hashes, `archive` (with `pax` and `sparse`) turns the
//! bytes into entries, `apply` decides what an entry does, `place` keeps to the directory tree and `attributes`
//! writes owners, modes, extended attributes and times.

mod apply;
mod archive;
mod attributes;
mod error;
mod format;
mod options;
mod pax;
mod place;
mod sparse;
mod stream;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

pub use error::UnpackError;
pub use format::LayerFormat;
pub use options::{Limits, Options, Whiteouts};

use apply::Applier;
use archive::Archive;
pub(crate) use error::shown;
pub(crate) use place::{open_path, remove_tree, split};
pub(crate) use stream::Digested;
use stream::{Hashed, Stream};

/// What [`unpack`] read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// `sha256:` and the hexadecimal digest of the whole uncompressed stream, with whatever follows the
    /// archive's end mark: what the image configuration lists as the layer's `diff_id`.
    pub diff_id: String,
    /// The number of bytes in that stream.
    pub uncompressed_size: u64,
    /// The number of entries in the archive, whiteouts included, PAX headers not.
    pub entries: u64,
    /// Directories that the layer has something in but does not mention itself, as paths from the root (which is
    /// empty), parents first. They were made with mode 0755 and owner 0:0; over a layer that has them too, they
    /// should take its attributes.
    pub implied: Vec<PathBuf>,
}

/// Uncompressed bytes are hashed, and written, in pieces of this size at most, so that they are still in the
/// processor's cache.
const BUFFER: usize = 256 << 10;

/// The uncompressed bytes of a layer.
pub(crate) fn decompressed(
    reader: impl Read,
    format: impl Into<Option<LayerFormat>>,
) -> Result<impl Read, UnpackError> {
    format::open(reader, format.into())
}

/// Unpacks a layer into `target`, a directory that exists, is empty and that nobody else uses meanwhile.
///
/// `format` is a [`LayerFormat`], or `None` to tell it from the first bytes. The call blocks, reads `reader` to
/// its end, and leaves syncing to the caller. [`Unpacked::diff_id`] is for the caller to compare.
///
/// # Errors
/// If the layer is malformed, beyond [`Options::limits`] or cannot be read, or if the file system refuses
/// something. The target then holds a part of the layer, and is for the caller to remove.
pub fn unpack(
    reader: impl Read,
    format: impl Into<Option<LayerFormat>>,
    target: &Path,
    options: &Options,
) -> Result<Unpacked, UnpackError> {
    let source = format::open(reader, format.into())?;
    unpack_digested(Hashed::new(BufReader::with_capacity(BUFFER, source)), target, options)
}

/// The same with a layer that somebody else inflates and hashes.
pub(crate) fn unpack_digested(
    source: impl Digested,
    target: &Path,
    options: &Options,
) -> Result<Unpacked, UnpackError> {
    let mut applier = Applier::new(target, options)?;
    let mut archive = Archive::new(Stream::new(source, options.limits.uncompressed_size), &options.limits);
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        if entries > options.limits.entries {
            return Err(UnpackError::Limit { what: "number of entries", limit: options.limits.entries });
        }
        applier.apply(entry, &mut archive)?;
    }
    let implied = applier.finish()?;
    let implied = implied.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect();
    let (diff_id, uncompressed_size) = archive.into_stream().finish()?;
    Ok(Unpacked { diff_id, uncompressed_size, entries, implied })
}
