//! What containerd's labels say about the layer it wants.

use registry::{Digest, Reference};

use crate::snapshotter::labels;
use crate::snapshotter::store::Labels;

/// A layer that containerd wants to be prepared.
#[derive(Debug, Clone)]
pub struct LayerRequest {
    /// containerd's namespace.
    pub namespace: String,
    /// The image.
    pub reference: Reference,
    /// Digest of the image manifest.
    pub manifest: Digest,
    /// Digest of the compressed layer.
    pub layer: Digest,
    /// Chain ID of the layer with all below it.
    pub chain_id: String,
    /// The SOCI index to use and no other.
    pub index: Option<Digest>,
}

/// What a pull is known by. Each index asked for explicitly makes another one.
pub(super) type PullKey = (String, String, Digest, Option<Digest>);

/// Why labels do not say which layer is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A label is missing: annotations of snapshots are turned off in the client.
    #[error(
        "the client does not say which image the layer belongs to (label {0} is missing); see \"pull is not lazy\" in docs/troubleshooting.md"
    )]
    Missing(&'static str),
    /// A label that makes no sense.
    #[error("label {label} is {value:?}: {reason}")]
    Invalid {
        /// The label.
        label: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

impl LayerRequest {
    /// Reads the labels of a Prepare for the layer `chain_id`.
    ///
    /// # Errors
    /// If the labels do not name an image and a layer.
    pub fn new(namespace: &str, chain_id: &str, given: &Labels) -> Result<Self, RequestError> {
        let required = |label: &'static str| {
            given.get(label).filter(|value| !value.is_empty()).ok_or(RequestError::Missing(label))
        };
        fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
            label: &'static str,
            value: &str,
        ) -> Result<T, RequestError> {
            value.parse().map_err(|error: T::Err| RequestError::Invalid {
                label,
                value: value.chars().take(200).collect(),
                reason: error.to_string(),
            })
        }
        let index = given.get(labels::INDEX_DIGEST).filter(|value| !value.is_empty());
        Ok(Self {
            namespace: namespace.to_owned(),
            reference: parse(labels::IMAGE_REF, required(labels::IMAGE_REF)?)?,
            manifest: parse(labels::MANIFEST_DIGEST, required(labels::MANIFEST_DIGEST)?)?,
            layer: parse(labels::LAYER_DIGEST, required(labels::LAYER_DIGEST)?)?,
            chain_id: chain_id.to_owned(),
            index: index.map(|value| parse(labels::INDEX_DIGEST, value)).transpose()?,
        })
    }

    pub(super) fn key(&self) -> PullKey {
        let repository = self.reference.repository();
        (
            self.namespace.clone(),
            format!("{}/{}", repository.host(), repository.name()),
            self.manifest.clone(),
            self.index.clone(),
        )
    }
}
