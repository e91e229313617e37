//! What was built.

use registry::{Descriptor, Digest};

use super::options::BuildOptions;
use super::options::layer_record;
use crate::manifest::{IndexManifest, ZtocKind};
use crate::oci::IMAGE_MANIFEST;
use crate::platform::Platform;
use crate::store::{ArtifactKind, Record};

/// An index that was built and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedIndex {
    /// Platform of the image.
    pub platform: Platform,
    /// Descriptor of the image manifest.
    pub image: Descriptor,
    /// Descriptor of the index manifest.
    pub index: Descriptor,
    /// The index manifest.
    pub manifest: IndexManifest,
    /// Layers that the image has.
    pub layers: usize,
    /// Layers that could not be indexed, each with its reason.
    pub failed: Vec<(Digest, String)>,
}

impl CreatedIndex {
    /// What the store is to know about the index, of the image manifest `image` of what `root` is, which is called `name`.
    pub(crate) fn record(
        &self,
        options: &BuildOptions,
        image: &Digest,
        root: &Digest,
        name: String,
    ) -> Record {
        let mut record = Record {
            kind: ArtifactKind::Index,
            image_digest: Some(root.clone()),
            image_ref: name,
            platform: self.platform.to_string(),
            media_type: IMAGE_MANIFEST.to_owned(),
            artifact_type: self.manifest.version.media_type().to_owned(),
            ..layer_record(options, self.index.digest.clone(), self.index.size, image.clone())
        };
        record.stamp();
        record
    }
}

/// A layer's zTOC, in the store.
#[derive(Debug, Clone)]
pub(super) struct LayerZtoc {
    pub(super) kind: ZtocKind,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) has_xattrs: bool,
}

/// What a layer came to: a zTOC, or nothing with the reason if that was the layer's own fault.
pub(super) type LayerResult = Result<LayerZtoc, Option<String>>;
