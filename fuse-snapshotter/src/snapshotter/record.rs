//! What the store remembers about how a snapshot is served.

use registry::{Digest, Reference};
use serde::{Deserialize, Serialize};

use super::error::SnapshotError;
use super::labels;
use super::store::Node;
use crate::image::{LayerKey, MAX_SOURCES, OtherSource, RecordedLayer, Served, name_of};

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
    pub mode: RecordedMode,
    /// Other repositories that have it, the oldest first: those of images that were pulled later and share the layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherSource>,
}

/// How a layer's snapshot is served, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum RecordedMode {
    /// Read lazily.
    Lazy {
        /// Digest of the zTOC.
        ztoc: Digest,
        /// Digest of the index that names the zTOC.
        index: Digest,
    },
    /// Fetched and unpacked by us.
    Eager {
        /// Why it is not read lazily.
        reason: String,
    },
    /// Handed back to containerd, which fetches and unpacks it.
    Deferred {
        /// Why it is.
        reason: String,
    },
}

impl RecordedMode {
    /// The same in a word, and the reason if it is not lazy.
    #[must_use]
    pub fn served(&self) -> (Served, Option<&str>) {
        match self {
            Self::Lazy { .. } => (Served::Lazy, None),
            Self::Eager { reason } => (Served::Unpacked, Some(reason)),
            Self::Deferred { reason } => (Served::Deferred, Some(reason)),
        }
    }
}

impl RecordedLayer for Record {
    fn image(&self) -> &str {
        &self.image
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn others(&self) -> &[OtherSource] {
        &self.others
    }
}

impl Record {
    /// The record of a snapshot, if it is one of a layer.
    #[must_use]
    pub fn of(node: &Node) -> Option<Self> {
        Self::decode(node.record.as_deref()?, &node.key)
    }

    /// The record of a snapshot that is about to be mounted, if it is one of a layer. Without it a lazy layer would be
    /// taken for an empty directory.
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

    /// Notes another repository with the content of the layer, in place of the oldest if there are many. Whether it was
    /// new.
    pub(super) fn add_source(&mut self, other: OtherSource) -> bool {
        let own = self.image.parse().map(|image: Reference| name_of(image.repository()));
        let is_own = other.layer == self.layer && own.is_ok_and(|own| own == other.repository);
        if is_own || self.others.contains(&other) {
            return false;
        }
        let surplus = (self.others.len() + 2).saturating_sub(MAX_SOURCES);
        self.others.drain(..surplus.min(self.others.len()));
        self.others.push(other);
        true
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
            RecordedMode::Lazy { index, .. } => Some(index),
            RecordedMode::Eager { .. } | RecordedMode::Deferred { .. } => None,
        }
    }

    /// The layer to open, if it is read lazily.
    #[must_use]
    pub fn lazy(&self) -> Option<LayerKey> {
        match &self.mode {
            RecordedMode::Lazy { ztoc, .. } => {
                Some(LayerKey { layer: self.layer.clone(), ztoc: ztoc.clone() })
            }
            RecordedMode::Eager { .. } | RecordedMode::Deferred { .. } => None,
        }
    }
}
