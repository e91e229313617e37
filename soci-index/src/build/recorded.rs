//! An index with the prefetch artifacts of a recorded start, made of the index that the image had at that start.
//!
//! No layer is read for this: the zTOCs stay as they are, and the new index names them and the artifacts.

use std::sync::Arc;

use registry::{Descriptor, Digest};

use super::created::CreatedIndex;
use super::error::CreateError;
use super::options::BuildOptions;
use super::options::layer_record;
use super::prefetch::{recorded_spans, store_artifact};
use crate::discover::Nearby;
use crate::image::PlatformImage;
use crate::manifest::{IndexManifest, IndexVersion, MAX_ZTOC_SIZE, PREFETCH, RECORDED, ZtocRef};
use crate::prefetch::{PrefetchArtifact, prioritise};
use crate::recording::Recording;
use crate::store::{ArtifactKind, Store, StoreError};

/// Why a recording did not become an index.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The store failed, or a zTOC is damaged.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The image names its index by digest, so that another one cannot take its place.
    #[error("the image was read with SOCI index {0} of version 2, which is a part of the image")]
    Version2(Digest),
    /// The index is one of another image.
    #[error("SOCI index {index} does not belong to image manifest {image}")]
    Unrelated {
        /// The index.
        index: Digest,
        /// The image.
        image: Digest,
    },
    /// A zTOC that the index names is nowhere.
    #[error("zTOC {0} of the image's index is neither on this machine nor in the registry")]
    NoZtoc(Digest),
    /// The index has no zTOC for anything that was read.
    #[error("the recording names no span of a layer that has a zTOC in SOCI index {0}")]
    Empty(Digest),
}

impl From<StoreError> for RecordedError {
    fn from(error: StoreError) -> Self {
        Self::Create(error.into())
    }
}

/// Stores the prefetch artifacts of `recording`, and an index for `image` that names them beside the zTOCs of `base`, the
/// index that the recording was taken with. zTOCs that the store lacks come from `ztocs`. `root` is what the image's name
/// stands for, and `name` that name.
///
/// # Errors
/// See [`RecordedError`].
pub async fn create_recorded(
    store: &Store,
    recording: &Arc<Recording>,
    base: &IndexManifest,
    (image, root, name): (&PlatformImage, &Digest, String),
    ztocs: &dyn Nearby,
) -> Result<CreatedIndex, RecordedError> {
    let manifest = &image.descriptor.digest;
    match (base.version, &base.subject) {
        (IndexVersion::V2, _) => return Err(RecordedError::Version2(recording.index.clone())),
        (IndexVersion::V1, Some(subject)) if subject.digest == *manifest => {}
        (IndexVersion::V1, _) => {
            return Err(RecordedError::Unrelated { index: recording.index.clone(), image: manifest.clone() });
        }
    }
    let _lease = store.lease().await?;
    let mut layers: Vec<(Digest, BuildOptions)> = Vec::new();
    let mut places = Vec::new();
    for ztoc in base.ztocs() {
        // The manifest's parser has checked it.
        let Ok(layer) = ztoc.layer.parse::<Digest>() else { continue };
        let options = options(base, &ztoc);
        keep(store, &ztoc, &layer, &options, ztocs).await?;
        let recorded = recording.layers.iter().any(|recorded| recorded.layer == layer);
        if recorded && !layers.iter().any(|(known, _)| *known == layer) {
            let digest = &ztoc.descriptor.digest;
            let bytes = store.get(digest, MAX_ZTOC_SIZE).await?;
            places.push(recorded_spans(recording, &layer, digest, bytes).await?);
            layers.push((layer, options));
        }
    }
    let mut prefetches = Vec::new();
    for ((layer, options), ranges) in layers.iter().zip(prioritise(&places)) {
        if let Some(artifact) = PrefetchArtifact::in_order(ranges) {
            prefetches.extend(store_artifact(store, options, layer, &artifact).await?);
        }
    }
    if prefetches.is_empty() {
        return Err(RecordedError::Empty(recording.index.clone()));
    }
    let mut index = base.clone();
    index.blobs.retain(|blob| blob.media_type != PREFETCH);
    index.blobs.extend(prefetches);
    index.annotations.insert(RECORDED.to_owned(), recording.taken.to_string());
    let descriptor = store.put_index(&index).await?;
    let created = CreatedIndex {
        platform: image.platform.clone(),
        image: image.descriptor.clone(),
        index: descriptor,
        layers: base.ztocs().count(),
        failed: Vec::new(),
        manifest: index,
    };
    let options = layers.first().map(|(_, options)| options.clone()).unwrap_or_default();
    let record = created.record(&options, manifest, root, name);
    store.record(vec![record]).await?;
    Ok(created)
}

/// What a layer's zTOC was built with, as far as records say it.
fn options(base: &IndexManifest, ztoc: &ZtocRef<'_>) -> BuildOptions {
    BuildOptions {
        span_size: ztoc.span_size.unwrap_or_default(),
        tool: base.build_tool().unwrap_or_default().to_owned(),
        ..BuildOptions::default()
    }
}

/// Sees to it that the store has a zTOC, so that the index can be pushed anywhere.
async fn keep(
    store: &Store,
    ztoc: &ZtocRef<'_>,
    layer: &Digest,
    options: &BuildOptions,
    ztocs: &dyn Nearby,
) -> Result<(), RecordedError> {
    let Descriptor { digest, size, media_type, .. } = ztoc.descriptor;
    if store.adopt(digest, *size).await? {
        return Ok(());
    }
    let bytes = ztocs.get(digest, (*size).min(MAX_ZTOC_SIZE)).await;
    let bytes = bytes.filter(|bytes| Digest::of(bytes) == *digest);
    store.put(bytes.ok_or_else(|| RecordedError::NoZtoc(digest.clone()))?).await?;
    let mut record = layer_record(options, digest.clone(), *size, layer.clone());
    record.kind = ArtifactKind::Layer;
    record.media_type.clone_from(media_type);
    // Not built here: who builds an index does not take it on trust.
    record.found = true;
    record.stamp();
    Ok(store.record(vec![record]).await?)
}
