//! One layer, made ready: to be read lazily, or unpacked.
//!
//! `lazy` verifies a layer's zTOC and opens its blob, which `ahead` may have done before; `eager` fetches and unpacks a layer, or indexes a local copy of it;
//! with the bytes of which `pipeline` is ahead; `inherit` gives directories that a layer only implies the attributes they have below. [`OpenLayers`] holds the layers
//! that the daemon serves, each once however many images share it: its number in inode numbers, its zTOC on disk, its
//! background fetch.

mod blob_opener;
mod containerd;
pub(crate) mod eager;
pub(crate) mod inherit;
pub(crate) mod lazy;
mod open;
mod origin;
mod pipeline;
mod sources;
mod twin;
pub mod unpack;
mod ztocs;

use registry::Digest;
use serde::{Deserialize, Serialize};

pub(crate) use blob_opener::{BlobOpener, Opened};
pub use containerd::ContainerdContent;
pub use open::{Collected, OpenLayer, OpenLayers, OpenOptions, ReopenError};
pub use origin::{ImageOrigin, LocalContent};
pub(crate) use sources::{MAX_SOURCES, Seek, name_of};
pub(crate) use twin::Chain;

/// What names a layer that is read lazily: ranged reads are never checked against the layer's own digest, so a layer as
/// another zTOC describes it is another layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerKey {
    /// Digest of the compressed layer.
    pub layer: Digest,
    /// Digest of the zTOC.
    pub ztoc: Digest,
}

impl std::fmt::Display for LayerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.layer.hex(), self.ztoc.hex())
    }
}
