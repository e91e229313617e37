//! What was built.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use registry::{Descriptor, Digest};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use ztoc::Ztoc;

use super::budget::MemoryBudget;
use super::file::{FileError, build_file, store_ztoc};
use super::prefetch::MAX_PREFETCH_FILES;
use super::progress::{LayerEvent, Progress, Silent, Skipped};
use super::recorded::{RecordedError, create_recorded};
use crate::image::{self, PlatformChoice, PlatformImage};
use crate::manifest::{IndexManifest, IndexVersion, MAX_ZTOC_SIZE, PREFETCH, ZtocKind};
use crate::oci::IMAGE_MANIFEST;
use crate::platform::Platform;
use crate::recording::Recording;
use crate::source::{ImageSource, SourceError};
use crate::store::{ArtifactKind, Record, Store, StoreError};
use super::layer::{BuildLayerError, Format, Outcome};
use super::options::{BuildOptions, DEFAULT_MEMORY, DEFAULT_MIN_LAYER_SIZE};
use super::options::{layer_record};
use super::error::{CreateError};

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
    kind: ZtocKind,
    digest: Digest,
    size: u64,
    has_xattrs: bool,
}

/// What a layer came to: a zTOC, or nothing with the reason if that was the layer's own fault.
pub(super) type LayerResult = Result<LayerZtoc, Option<String>>;
