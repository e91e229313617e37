//! What a build tells while it runs.

use std::fmt;

use registry::{Descriptor, Digest};

use crate::platform::Platform;

/// Receives the events of a build. Called from several tasks at once; must not block.
pub trait Progress: Send + Sync {
    /// Something happened to a layer.
    fn layer(&self, layer: &Descriptor, event: LayerEvent<'_>);

    /// A platform gives no index, while others may.
    fn platform_skipped(&self, platform: &Platform, reason: &str) {
        let _ = (platform, reason);
    }

    /// A prefetch artifact of a layer was stored.
    fn prefetch_built(&self, layer: &Descriptor, artifact: &Digest) {
        let _ = (layer, artifact);
    }

    /// A file to prefetch is not, or not wholly, in the artifacts of this platform's image.
    fn prefetch_skipped(&self, platform: &Platform, file: &str, reason: &str) {
        let _ = (platform, file, reason);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn layer(&self, _layer: &Descriptor, _event: LayerEvent<'_>) {}
}

/// What happened to a layer. Every layer ends with one of `Skipped`, `Reused`, `Built`, `Failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerEvent<'a> {
    /// Its bytes begin to be read.
    Started,
    /// This many more bytes, compressed, have been read.
    Advanced(u64),
    /// It needs more memory than other layers leave, and will be started again: what was read of it was for nothing.
    Postponed,
    /// It gets no zTOC by the rules.
    Skipped(Skipped),
    /// The store had its zTOC already.
    Reused(&'a Digest),
    /// Its zTOC was built and stored.
    Built(&'a Digest),
    /// It cannot be indexed, for this reason.
    Failed(&'a str),
}

/// Why the rules give a layer no zTOC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skipped {
    /// It is smaller than this many bytes.
    TooSmall(u64),
    /// It is compressed in this way; empty if nobody knows how.
    Unsupported(String),
}

impl Skipped {
    /// The reference's message, word for word: scripts look for it.
    pub fn message<'a>(&'a self, layer: &'a Descriptor) -> impl fmt::Display + 'a {
        struct Message<'a>(&'a Skipped, &'a Descriptor);
        impl fmt::Display for Message<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(skipped, layer) = self;
                let media_type = crate::text::excerpt(&layer.media_type);
                write!(f, "ztoc skipped - layer {} ({media_type}) ", layer.digest)?;
                match skipped {
                    Skipped::TooSmall(min) => {
                        write!(f, "size {} is less than min-layer-size {min}", layer.size)
                    }
                    Skipped::Unsupported(compression) => write!(
                        f,
                        "is compressed in an unsupported format. expect: [tar, gzip, unknown] but got {compression:?}"
                    ),
                }
            }
        }
        Message(self, layer)
    }
}
