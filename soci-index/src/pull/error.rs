//! Why an image cannot be pulled.

use registry::Digest;

use crate::containerd::ContainerdError;
use crate::source::SourceError;

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The image could not be read from its registry.
    #[error(transparent)]
    Source(Box<SourceError>),
    /// containerd or the snapshotter failed.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// Manifest and configuration do not describe an image.
    #[error("{digest} is not an image that can be run: {reason}")]
    NotAnImage {
        /// The manifest.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// What was unpacked is not what the image's configuration says.
    #[error(
        "layer {layer} was unpacked to {actual}, but the image's configuration says {expected}: the image is damaged or forged"
    )]
    DiffId {
        /// The layer.
        layer: Digest,
        /// The digest of the uncompressed layer in the configuration.
        expected: Digest,
        /// The digest of what was unpacked.
        actual: Digest,
    },
    /// The snapshotter says that it has a snapshot, and does not show it.
    #[error(
        "the snapshotter {snapshotter} says that it has layer {layer} already, and has no snapshot {chain_id}"
    )]
    Vanished {
        /// The snapshotter.
        snapshotter: String,
        /// The layer.
        layer: Digest,
        /// The snapshot.
        chain_id: Digest,
    },
    /// Something failed that should not.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<SourceError> for PullError {
    fn from(error: SourceError) -> Self {
        Self::Source(Box::new(error))
    }
}
