//! Why an index cannot be built.

use registry::Digest;

use crate::source::SourceError;
use crate::store::StoreError;

/// Why no index was built.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The image could not be read, or is corrupt.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An option is out of range.
    #[error("{0}")]
    Options(String),
    /// The image manifest lists something that is no layer.
    #[error("{digest}: not a layer mediaType: {media_type}; only container images can be indexed")]
    NotALayer {
        /// The descriptor's digest.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// Every layer was skipped or failed.
    #[error("no ztocs created, all layers either skipped or produced errors")]
    Empty,
    /// Something failed that should not.
    #[error("internal error: {0}")]
    Internal(String),
}
