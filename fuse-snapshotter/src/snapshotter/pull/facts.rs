//! What is known of an image once its manifest and its index have been looked for.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use registry::Descriptor;
use soci_index::discover::{FoundIndex, Wanted};
use soci_index::oci::{ImageConfig, ImageManifest, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE};
use tokio::task::{AbortHandle, JoinError};
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;

use super::context::PullContext;
use super::error::FactsError;
use super::request::LayerRequest;
use crate::base::metrics::{LayerMetrics, Operation};
use crate::image::index::IndexSearch;
use crate::image::{ImageOrigin, LayerKey, OpenedBlobs, WhyNotLazy};

/// A job that several wait for.
pub(super) type Job<T> = Shared<BoxFuture<'static, T>>;

/// Runs a job in a task of its own: whoever waits for it may go away without stopping it for the others.
pub(super) fn spawn<T: Clone + Send + Sync + 'static>(
    job: impl Future<Output = T> + Send + 'static,
    failed: impl FnOnce(JoinError) -> T + Send + 'static,
) -> (Job<T>, AbortHandle) {
    let task = tokio::spawn(job);
    let handle = task.abort_handle();
    (task.map(|done| done.unwrap_or_else(failed)).boxed().shared(), handle)
}

/// An image's configuration, or why it is not known.
type Config = Result<Arc<ImageConfig>, Arc<FactsError>>;

/// What is known of an image.
pub(super) struct ImageFacts {
    pub(super) manifest: ImageManifest,
    /// The index, or why there is none.
    pub(super) index: Result<FoundIndex, WhyNotLazy>,
    /// Layers that were opened while the index was looked for.
    pub(super) opened: OpenedBlobs,
    /// Held as long as the index is in use, so that it is not forgotten before a snapshot names it.
    _index_metrics: Option<Arc<LayerMetrics>>,
    /// As long as it is there, layers of the image may be opened.
    _prefetch: Option<DropGuard>,
    config: Job<Config>,
}

impl ImageFacts {
    /// Reads the image manifest and looks for the index.
    pub(super) async fn look(
        origin: &ImageOrigin,
        request: &LayerRequest,
        context: &PullContext,
    ) -> Result<Self, FactsError> {
        let started = Instant::now();
        let (image, manifest) = read_manifest(origin, request).await?;
        // Layers that are unpacked need it. Nobody waits for it here.
        let config = read_config_beside(origin, &manifest);
        let found = search(origin, &image, &manifest, request, context).await;
        match &found {
            Ok((index, _)) => tracing::info!(
                digest = %index.digest, image = %request.reference, layers = index.covered,
                milliseconds = started.elapsed().as_millis() as u64,
                "fetching SOCI artifacts using index descriptor"
            ),
            Err(why) => tracing::warn!(
                error = %why,
                "unable to fetch SOCI artifacts for image \"{}\"", request.reference
            ),
        }
        let (index, opened) = match found {
            Ok((index, opened)) => (Ok(index), opened),
            // Without an index layers are not read like this.
            Err(why) => (Err(why), OpenedBlobs::default()),
        };
        let metrics = index.as_ref().ok().map(|index| context.surroundings.metrics.layer(&index.digest));
        if let Some(metrics) = &metrics {
            metrics.observe(Operation::SociIndexFetch, started.elapsed());
        }
        let prefetch = index.as_ref().ok();
        let prefetch = prefetch.and_then(|index| prefetch_start(&manifest, index, origin, request, context));
        Ok(Self { manifest, index, opened, _index_metrics: metrics, _prefetch: prefetch, config })
    }

    /// The image's configuration.
    pub(super) async fn config(&self, origin: &ImageOrigin) -> Config {
        match self.config.clone().await {
            Ok(config) => Ok(config),
            // It was asked for at the start of the pull, maybe some time ago.
            Err(_) => read_config(origin, &self.manifest.config).await,
        }
    }

    /// Where in the image a layer is. The same layer may be there twice; then the chain ID decides.
    pub(super) async fn position(&self, origin: &ImageOrigin, request: &LayerRequest) -> Option<usize> {
        let layers = &self.manifest.layers;
        let mut found = (0..layers.len()).filter(|position| layers[*position].digest == request.layer);
        let first = found.next()?;
        if found.next().is_none() {
            return Some(first);
        }
        let config = self.config(origin).await.ok()?;
        let matches = |position: &usize| {
            layers[*position].digest == request.layer
                && config.rootfs.chain_id(position + 1).as_ref() == Some(&request.chain_id)
        };
        (0..layers.len()).find(matches)
    }
}

/// Reads the image's manifest, from this machine if it has it.
async fn read_manifest(
    origin: &ImageOrigin,
    request: &LayerRequest,
) -> Result<(Descriptor, ImageManifest), FactsError> {
    let (json, media_type) = match origin.local_content(&request.manifest, MAX_MANIFEST_SIZE).await {
        Some(json) => (json, None),
        None => {
            let root = origin.source.root().await?;
            (origin.source.manifest(&root).await?, Some(root.media_type))
        }
    };
    let manifest = ImageManifest::parse(&json)?;
    let media_type = media_type.unwrap_or_else(|| manifest.media_type.clone());
    Ok((Descriptor::new(media_type, request.manifest.clone(), json.len() as u64), manifest))
}

/// Looks for the index, and opens the layers meanwhile that are still to be pulled.
async fn search(
    origin: &ImageOrigin,
    image: &Descriptor,
    manifest: &ImageManifest,
    request: &LayerRequest,
    context: &PullContext,
) -> Result<(FoundIndex, OpenedBlobs), WhyNotLazy> {
    let options = &context.options;
    let wanted = Wanted { explicit: request.index.clone(), v1: options.v1, v2: options.v2 };
    // Layers below the one that is asked for are there already.
    let first = manifest.layers.iter().position(|layer| layer.digest == request.layer).unwrap_or(0);
    let open = if options.always_unpack { &[] } else { &manifest.layers[first..] };
    let min_layer_size = options.min_layer_size;
    let search = IndexSearch { image, manifest, wanted: &wanted, open, min_layer_size };
    Ok(search.find(origin).await?)
}

/// Begins to read the image's configuration.
fn read_config_beside(origin: &ImageOrigin, manifest: &ImageManifest) -> Job<Config> {
    let (origin, descriptor) = (origin.clone(), manifest.config.clone());
    let task = tokio::spawn(async move { read_config(&origin, &descriptor).await });
    let task = AbortOnDropHandle::new(task);
    task.map(|done| done.unwrap_or_else(|error| Err(Arc::new(error.into())))).boxed().shared()
}

async fn read_config(origin: &ImageOrigin, descriptor: &Descriptor) -> Config {
    let config = match origin.local_content(&descriptor.digest, MAX_CONFIG_SIZE).await {
        Some(json) => ImageConfig::parse(&json).map_err(FactsError::from),
        None => origin.source.image_config(descriptor).await.map_err(FactsError::from),
    };
    config.map(Arc::new).map_err(Arc::new)
}

/// Begins to fetch what the image's container will read, of the layers that are going to be lazy.
fn prefetch_start(
    manifest: &ImageManifest,
    index: &FoundIndex,
    origin: &ImageOrigin,
    request: &LayerRequest,
    context: &PullContext,
) -> Option<DropGuard> {
    let options = &context.options;
    if options.always_unpack {
        return None;
    }
    let large = manifest.layers.iter().filter(|layer| layer.size >= options.min_layer_size);
    let keys = large.filter_map(|layer| {
        let ztoc = index.manifest.ztoc_of(&layer.digest)?.descriptor.digest.clone();
        Some(LayerKey { layer: layer.digest.clone(), ztoc })
    });
    context.surroundings.prefetch.pulled(&request.manifest, keys.collect(), &index.manifest, origin)
}
