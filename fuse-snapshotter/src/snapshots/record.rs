//! What the store remembers about how a snapshot is served.

use registry::Digest;
use serde::{Deserialize, Serialize};

use super::store::Node;
use super::{SnapshotError, labels};
use crate::layers::LayerKey;

/// How a layer's snapshot is served, and whose it is. Stored as JSON beside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The image that it was pulled for.
    pub image: String,
    /// Digest of that image's manifest.
    pub manifest: Digest,
    /// Digest of the compressed layer.
    pub layer: Digest,
    /// Size of the compressed layer in bytes; 0 if unknown.
    pub size: u64,
    /// How it is served.
    pub mode: Mode,
}

/// How a layer's snapshot is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Mode {
    /// Read lazily.
    Lazy {
        /// Digest of the zTOC.
        ztoc: Digest,
        /// Digest of the index that names the zTOC.
        index: Digest,
    },
    /// Fetched and unpacked by us.
    Eager {
        /// Why.
        reason: String,
    },
    /// Handed back to containerd, which fetches and unpacks it.
    Deferred {
        /// Why.
        reason: String,
    },
}

impl Record {
    /// The record of a snapshot, if it is one of a layer.
    #[must_use]
    pub fn of(node: &Node) -> Option<Self> {
        Self::decode(node.record.as_deref()?, &node.key)
    }

    /// The record of a snapshot that is about to be mounted, if it is one of a layer. Without it a lazy layer would be taken for
    /// an empty directory.
    pub(super) fn needed(node: &Node) -> Result<Option<Self>, SnapshotError> {
        match (&node.record, Self::of(node)) {
            (None, _) if !node.labels.contains_key(labels::REMOTE) => Ok(None),
            (Some(_), Some(record)) => Ok(Some(record)),
            _ => Err(SnapshotError::Unavailable(format!(
                "how snapshot {} is served is not known any more; remove the image and pull it again",
                node.key
            ))),
        }
    }

    /// Reads a stored record. One that cannot be read is logged, and taken for none.
    #[must_use]
    pub fn decode(json: &[u8], key: &str) -> Option<Self> {
        serde_json::from_slice(json)
            .inspect_err(|error| tracing::error!(snapshot = key, %error, "cannot read the snapshot's record"))
            .ok()
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// The index that names its zTOC, if it is read lazily.
    #[must_use]
    pub fn index(&self) -> Option<&Digest> {
        match &self.mode {
            Mode::Lazy { index, .. } => Some(index),
            Mode::Eager { .. } | Mode::Deferred { .. } => None,
        }
    }

    /// The layer to open, if it is read lazily.
    #[must_use]
    pub fn lazy(&self) -> Option<LayerKey> {
        match &self.mode {
            Mode::Lazy { ztoc, .. } => Some(LayerKey { layer: self.layer.clone(), ztoc: ztoc.clone() }),
            Mode::Eager { .. } | Mode::Deferred { .. } => None,
        }
    }
}
