//! What is remembered of a layer that was committed: enough to read it again after a restart.

use registry::Digest;
use serde::{Deserialize, Serialize};

/// A repository with the content of a layer that was pulled from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherSource {
    /// `host[:port]/name`.
    pub repository: String,
    /// Digest of the compressed layer there: the same one, or one with the same content.
    pub layer: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What is remembered of a layer.
pub trait RecordedLayer {
    /// The reference of the image that it was pulled for.
    fn image(&self) -> &str;

    /// Size of the compressed layer in bytes.
    fn size(&self) -> u64;

    /// Other repositories that have it.
    fn others(&self) -> &[OtherSource];
}
