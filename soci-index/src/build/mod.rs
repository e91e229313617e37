//! Building SOCI indexes: a zTOC for each layer that gets one, and an index manifest per platform.

mod budget;
mod created;
mod error;
mod file;
pub(crate) mod layer;
mod options;
mod prefetch;
mod progress;
mod recorded;
mod shared;

use std::collections::HashMap;
use std::sync::Arc;

use registry::Descriptor;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub(crate) use budget::MemoryBudget;
pub use file::{FileError, build_file, store_ztoc};
pub use prefetch::MAX_PREFETCH_FILES;
pub use progress::{LayerEvent, Progress, Silent, Skipped};
pub use recorded::{RecordedError, create_recorded};

use crate::image::{self, PlatformChoice, PlatformImage};
use crate::manifest::{IndexManifest, IndexVersion, PREFETCH};
use crate::source::{ImageSource, SourceError};
use crate::store::{ArtifactKind, Record, Store, StoreError};
pub use created::CreatedIndex;
use created::LayerResult;
pub use error::CreateError;
use layer::Format;
pub use options::{BuildOptions, DEFAULT_MEMORY, DEFAULT_MIN_LAYER_SIZE};
use shared::{LayerKey, Shared};

/// Builds and stores a version 1 index for each platform that `choice` asks for.
///
/// A layer that cannot be indexed (junk, truncated, sparse files, …) is left out with an event that gives the reason. So is
/// a platform that gets no zTOC at all, as long as another one gets some.
///
/// # Errors
/// When the image cannot be read or its bytes do not match their digests, the store fails, or nothing could be indexed
/// ([`CreateError::Empty`]).
pub async fn create(
    source: Arc<dyn ImageSource>,
    store: &Store,
    options: &BuildOptions,
    choice: &PlatformChoice,
    progress: Arc<dyn Progress>,
) -> Result<Vec<CreatedIndex>, CreateError> {
    let root = source.root().await?;
    let images = image::select(&*source, &root, choice).await?;
    let _lease = store.lease().await?;
    let version = IndexVersion::V1;
    let work = Work { source, root, images, version, all: *choice == PlatformChoice::All };
    work.run(store, options, progress).await
}

/// Which indexes are to be built.
pub(crate) struct Work {
    pub(crate) source: Arc<dyn ImageSource>,
    /// What the image's name stands for.
    pub(crate) root: Descriptor,
    /// Of which platforms.
    pub(crate) images: Vec<PlatformImage>,
    /// Version 1 indexes get a record in the store; version 2 ones have none before their image is converted.
    pub(crate) version: IndexVersion,
    /// Whether all platforms were asked for, which means those that are there.
    pub(crate) all: bool,
}

impl Work {
    /// Builds and stores the indexes. The caller holds a lease of the store.
    pub(crate) async fn run(
        self,
        store: &Store,
        options: &BuildOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<CreatedIndex>, CreateError> {
        let Self { source, root, images, version, all } = self;
        if options.span_size == 0 || i64::try_from(options.span_size).is_err() {
            return Err(CreateError::Options(format!(
                "span size {} is out of range: it has to be above 0",
                options.span_size
            )));
        }
        if options.prefetch_files.len() > MAX_PREFETCH_FILES {
            return Err(CreateError::Options(format!(
                "{} files to prefetch, more than the {MAX_PREFETCH_FILES} allowed",
                options.prefetch_files.len()
            )));
        }
        let mut indexer = Indexer {
            version,
            known: if options.force { Vec::new() } else { reusable(store, options).await? },
            built: HashMap::new(),
            shared: Arc::new(Shared {
                source,
                store: store.clone(),
                options: options.clone(),
                progress,
                permits: Semaphore::new(options.parallel_layers.max(1)),
                memory: MemoryBudget::new(options.memory),
            }),
        };
        let mut created = Vec::new();
        let mut not_pulled = None;
        for image in &images {
            match indexer.index(&root, image).await {
                Ok(index) => created.push(index),
                // Who asks for all platforms of an image in containerd means those that are there.
                Err(CreateError::Source(error @ SourceError::NotPulled { .. })) if all => {
                    indexer.shared.progress.platform_skipped(&image.platform, &error.to_string());
                    not_pulled.get_or_insert(error);
                }
                Err(error @ CreateError::Empty) if images.len() > 1 => {
                    indexer.shared.progress.platform_skipped(&image.platform, &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        match not_pulled {
            _ if !created.is_empty() => Ok(created),
            Some(error) => Err(error.into()),
            None => Err(CreateError::Empty),
        }
    }
}

/// zTOC records that a build with these options may use again.
async fn reusable(store: &Store, options: &BuildOptions) -> Result<Vec<Record>, StoreError> {
    let mut records = store.records().await?;
    records.retain(|record| {
        record.kind == ArtifactKind::Layer
            // Who built it decides whether its content can be relied on.
            && !record.found
            && record.span_size == options.span_size
            && record.tool == options.tool
    });
    Ok(records)
}

/// One run of [`create`]. Remembers layers across platforms.
struct Indexer {
    version: IndexVersion,
    known: Vec<Record>,
    built: HashMap<LayerKey, LayerResult>,
    shared: Arc<Shared>,
}

impl Indexer {
    async fn index(&mut self, root: &Descriptor, image: &PlatformImage) -> Result<CreatedIndex, CreateError> {
        let manifest = self.shared.source.image_manifest(&image.descriptor).await?;
        let layers: Vec<&Descriptor> =
            manifest.layers.iter().filter(|layer| layer.media_type != PREFETCH).collect();
        self.build_layers(&layers).await?;

        let options = &self.shared.options;
        let mut ztocs = Vec::new();
        let mut failed = Vec::new();
        let mut indexed = Vec::new();
        for &layer in &layers {
            match self.built.get(&LayerKey::of(layer)) {
                Some(Ok(ztoc)) => {
                    indexed.push((layer, ztoc));
                    ztocs.push(ztoc.kind.descriptor(
                        ztoc.digest.clone(),
                        ztoc.size,
                        layer,
                        options.span_size,
                        options.optimize_xattrs && !ztoc.has_xattrs,
                    ));
                }
                Some(Err(Some(reason))) => failed.push((layer.digest.clone(), reason.clone())),
                Some(Err(None)) | None => {}
            }
        }
        if ztocs.is_empty() {
            return Err(CreateError::Empty);
        }
        if !options.prefetch_files.is_empty() || options.recording.is_some() {
            ztocs.extend(self.shared.prefetch_artifacts(&image.platform, &indexed).await?);
        }
        let index = IndexManifest::new(self.version, ztocs, Some(&image.descriptor), &options.tool);
        let descriptor = self.shared.store.put_index(&index).await?;
        let created = CreatedIndex {
            platform: image.platform.clone(),
            image: image.descriptor.clone(),
            index: descriptor,
            manifest: index,
            layers: layers.len(),
            failed,
        };
        if self.version == IndexVersion::V1 {
            let record =
                created.record(options, &image.descriptor.digest, &root.digest, self.shared.source.name());
            self.shared.store.record(vec![record]).await?;
        }
        Ok(created)
    }

    /// Sees to it that `self.built` has every layer.
    async fn build_layers(&mut self, layers: &[&Descriptor]) -> Result<(), CreateError> {
        let mut tasks = JoinSet::new();
        let mut started = std::collections::HashSet::new();
        for &layer in layers {
            let key = LayerKey::of(layer);
            let Some(format) = Format::of(&layer.media_type) else {
                let media_type = crate::text::excerpt(&layer.media_type);
                return Err(CreateError::NotALayer { digest: layer.digest.clone(), media_type });
            };
            if let Some(done) = self.built.get(&key) {
                // Another platform had it: what this one reports is where its zTOC is.
                if let Ok(ztoc) = done {
                    self.shared.progress.layer(layer, LayerEvent::Reused(&ztoc.digest));
                }
                continue;
            }
            if let Some(skipped) = self.skip(layer, format) {
                self.shared.progress.layer(layer, LayerEvent::Skipped(skipped));
                self.built.insert(key, Err(None));
                continue;
            }
            if started.insert(key.clone()) {
                let known =
                    self.known.iter().filter(|record| record.oci_digest == layer.digest).cloned().collect();
                let (shared, layer) = (Arc::clone(&self.shared), layer.clone());
                tasks.spawn(async move { (key, shared.layer(&layer, format, known).await) });
            }
        }
        // The first error ends the run; dropping the set stops the other layers.
        while let Some(joined) = tasks.join_next().await {
            let (key, result) = joined.map_err(|error| CreateError::Internal(error.to_string()))?;
            self.built.insert(key, result?);
        }
        Ok(())
    }

    fn skip(&self, layer: &Descriptor, format: Format) -> Option<Skipped> {
        let min = self.shared.options.min_layer_size;
        if layer.size < min {
            return Some(Skipped::TooSmall(min));
        }
        match format {
            Format::Gzip | Format::Uncompressed | Format::Unknown | Format::Zstd => None,
            Format::Other => Some(Skipped::Unsupported(format.name().to_owned())),
        }
    }
}
