//! The name of a layer that is read lazily.

use registry::Digest;
use serde::{Deserialize, Serialize};

/// What names a layer that is read lazily: ranged reads are never checked against the layer's own digest, so a layer as
/// another zTOC describes it is another layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerKey {
    /// Digest of the compressed layer.
    pub layer: Digest,
    /// Digest of the zTOC.
    pub ztoc: Digest,
}

impl LayerKey {
    /// Reads what `Display` writes.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let digest = |hex: &str| format!("sha256:{hex}").parse().ok();
        let (layer, ztoc) = name.split_once('-')?;
        Some(Self { layer: digest(layer)?, ztoc: digest(ztoc)? })
    }
}

impl std::fmt::Display for LayerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.layer.hex(), self.ztoc.hex())
    }
}
