//! One pull of one image.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use registry::{Descriptor, Digest};
use soci_index::containerd::Endpoint;
use soci_index::discover::{FoundIndex, Wanted, find_index, find_local_index};
use soci_index::oci::{ImageConfig, ImageManifest, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE};
use soci_index::source::RegistrySource;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;

use super::request::LayerRequest;
use super::scratch::Scratch;
use super::{Images, Outcome, Position};
use crate::base::lock::lock;
use crate::base::metrics::{Count, DaemonCount, LayerMetrics, Operation};
use crate::base::text::Size;
use crate::content::tree::{Needs, Tree};
use crate::foresight::forecast::Command;
use crate::image::unpack::{self, Whiteouts};
use crate::image::{BlobOpener, ImageOrigin, LayerKey, Opened, eager};

/// What is known of an image once its manifest and its index have been looked for.
struct ImageFacts {
    manifest: ImageManifest,
    index: Option<FoundIndex>,
    /// Held as long as the index is in use, so that it is not forgotten before a snapshot names it.
    _index_metrics: Option<Arc<LayerMetrics>>,
    /// As long as it is there, layers of the image may be opened.
    _prefetch: Option<DropGuard>,
    /// Why there is no index.
    reason: String,
    config: Job<Result<Arc<ImageConfig>, String>>,
    /// Layers that were opened while the index was looked for.
    opened: Opened,
}

type Job<T> = Shared<BoxFuture<'static, T>>;

/// A pull: an image manifest in a repository, and what is being done about its layers.
pub(super) struct Pull {
    images: Arc<Images>,
    request: LayerRequest,
    origin: ImageOrigin,
    known: Job<Result<Arc<ImageFacts>, String>>,
    /// By position in the manifest.
    layers: Mutex<HashMap<usize, Job<Outcome>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// Chain IDs of the layers that were asked for.
    asked: Mutex<HashSet<String>>,
    unpacks: Arc<Semaphore>,
    used: Mutex<Instant>,
    /// Requests that wait for an answer.
    waiting: AtomicUsize,
    /// Something went wrong, or there was nothing to do: the next pull tries again.
    spent: Arc<AtomicBool>,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("manifest", &self.request.manifest).finish_non_exhaustive()
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        // What nobody asked for any more.
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
    }
}

/// Counts a request that waits.
struct Waiting<'p>(&'p Pull);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.touch();
    }
}

impl Pull {
    /// Starts to look for the index.
    pub(super) fn start(images: Arc<Images>, request: LayerRequest) -> Arc<Self> {
        let source = Arc::new(RegistrySource::new(
            images.client.clone(),
            request.reference.with_digest(request.manifest.clone()),
        ));
        let mut store = images.surroundings.store.clone();
        if let Some(address) = &images.options.artifacts_in {
            let endpoint = Endpoint::new(&address.to_string_lossy(), &request.namespace);
            store = store.map(|store| store.reading_containerd(endpoint));
        }
        let origin = ImageOrigin {
            source,
            registry: Some((images.client.clone(), request.reference.repository().clone())),
            store,
            local: (images.surroundings.content)(&request.namespace),
        };
        let spent = Arc::new(AtomicBool::new(false));
        let looking = {
            let (origin, request, images, spent) =
                (origin.clone(), request.clone(), Arc::clone(&images), Arc::clone(&spent));
            async move {
                let known = look(&origin, &request, &images).await;
                if known.as_ref().map_or(true, |known| known.index.is_none()) {
                    spent.store(true, Ordering::Release);
                }
                known.map(Arc::new)
            }
        };
        let (known, task) = spawn(looking, |error| Err(error.to_string()));
        let unpacks = Arc::new(Semaphore::new(images.options.parallel_unpacks));
        Arc::new(Self {
            images,
            request,
            origin,
            known,
            layers: Mutex::default(),
            tasks: Mutex::new(vec![task]),
            asked: Mutex::default(),
            unpacks,
            used: Mutex::new(Instant::now()),
            waiting: AtomicUsize::new(0),
            spent,
        })
    }

    pub(super) fn manifest(&self) -> &Digest {
        &self.request.manifest
    }

    pub(super) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        !self.is_waited_for() && lock(&self.used).elapsed() > time
    }

    /// Whether another pull should not believe what this one found. While somebody waits for it, it is the same pull.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire) && !self.is_waited_for()
    }

    /// Whether a layer was asked for before.
    pub(super) fn was_asked_for(&self, chain_id: &str) -> bool {
        lock(&self.asked).contains(chain_id)
    }

    /// The image's layers, if they are known by now.
    pub(super) fn layers_found(&self) -> Option<Vec<Descriptor>> {
        self.known.peek()?.as_ref().ok().map(|known| known.manifest.layers.clone())
    }

    /// Whether a layer can be the lowest one, as far as is known by now.
    pub(super) fn may_begin_with(&self, request: &LayerRequest) -> bool {
        match self.known.peek() {
            Some(Ok(known)) => {
                known.manifest.layers.first().is_none_or(|lowest| lowest.digest == request.layer)
            }
            _ => true,
        }
    }

    /// Whether a layer is the image's lowest one.
    pub(super) async fn place(&self, request: &LayerRequest) -> Position {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        let known = match self.known().await {
            Ok(known) => known,
            Err(reason) => return Position::Unknown(reason),
        };
        match self.position(&known, request).await {
            Some(0) => Position::Lowest,
            Some(_) => Position::Higher,
            None => Position::Unknown(format!("{} is no chain ID of the image", request.chain_id)),
        }
    }

    /// What was found out about the image, as soon as it was.
    async fn known(&self) -> Result<Arc<ImageFacts>, String> {
        let found = self.images.in_time(self.known.clone()).await;
        found.unwrap_or_else(|| Err("timeout looking for the SOCI index".into()))
    }

    /// Makes a layer ready, and begins with those above it. Also tells whether it is the image's topmost one.
    pub(super) async fn layer(self: &Arc<Self>, request: &LayerRequest) -> (Outcome, bool) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        lock(&self.asked).insert(request.chain_id.clone());
        let known = match self.known().await {
            Ok(known) => known,
            Err(reason) => return (Outcome::Defer { reason, indexed: false }, false),
        };
        let last = known.manifest.layers.len().checked_sub(1);
        if known.index.is_none() && !self.images.options.unpack_without_index {
            let is_last = last.is_some_and(|last| known.manifest.layers[last].digest == request.layer);
            return (Outcome::Defer { reason: known.reason.clone(), indexed: false }, is_last);
        }
        let Some(position) = self.position(&known, request).await else {
            let reason = format!("the image has no layer {}", request.layer);
            return (Outcome::Defer { reason, indexed: true }, false);
        };
        // By its position: an image may have the same layer twice.
        (self.layer_at(&known, position).await, Some(position) == last)
    }

    /// What a container of the image runs, as its configuration says.
    pub(super) async fn command(&self) -> Option<Command> {
        let known = self.known.clone().await.ok()?;
        Command::of(&*self.config(&known).await.ok()?)
    }

    async fn layer_at(self: &Arc<Self>, known: &Arc<ImageFacts>, position: usize) -> Outcome {
        let prepared = lock(&self.layers).contains_key(&position);
        for later in position..known.manifest.layers.len() {
            self.begin(known, later);
        }
        let Some(job) = lock(&self.layers).get(&position).cloned() else {
            return Outcome::Defer { reason: "the pull was given up".into(), indexed: true };
        };
        let outcome = job.await;
        if let Outcome::Lazy { layer, .. } = &outcome {
            let what = if prepared { Count::ResolveCacheHit } else { Count::ResolveCacheMiss };
            layer.lazy().metrics().count(what);
        }
        if !matches!(outcome, Outcome::Lazy { .. }) {
            // Unpacked layers are given away; and what failed is tried again.
            lock(&self.layers).remove(&position);
        }
        if matches!(outcome, Outcome::Defer { .. }) {
            self.spent.store(true, Ordering::Release);
        }
        outcome
    }

    /// Where in the image a layer is. The same layer may be there twice; then the chain ID decides.
    async fn position(&self, known: &ImageFacts, request: &LayerRequest) -> Option<usize> {
        let layers = &known.manifest.layers;
        let mut found = (0..layers.len()).filter(|position| layers[*position].digest == request.layer);
        let first = found.next()?;
        if found.next().is_none() {
            return Some(first);
        }
        let config = self.config(known).await.ok()?;
        let matches = |position: &usize| {
            layers[*position].digest == request.layer
                && config.rootfs.chain_id(position + 1).as_ref() == Some(&request.chain_id)
        };
        (0..layers.len()).find(matches)
    }

    async fn config(&self, known: &ImageFacts) -> Result<Arc<ImageConfig>, String> {
        match known.config.clone().await {
            Ok(config) => Ok(config),
            // It was asked for at the start of the pull, maybe some time ago.
            Err(_) => config(&self.origin, &known.manifest.config).await,
        }
    }

    /// Begins to make a layer ready, unless that is under way.
    fn begin(self: &Arc<Self>, known: &Arc<ImageFacts>, position: usize) {
        let mut layers = lock(&self.layers);
        layers.entry(position).or_insert_with(|| {
            // The pull must go when nobody wants it any more, so its tasks do not hold it.
            let maker = LayerMaker {
                images: Arc::clone(&self.images),
                origin: self.origin.clone(),
                unpacks: Arc::clone(&self.unpacks),
                pull: Arc::downgrade(self),
                known: Arc::clone(known),
            };
            let failed =
                |error: tokio::task::JoinError| Outcome::Defer { reason: error.to_string(), indexed: true };
            let (job, task) = spawn(async move { maker.make(position).await }, failed);
            lock(&self.tasks).push(task);
            job
        });
    }
}

/// Runs a job in a task of its own: whoever waits for it may go away without stopping it for the others.
fn spawn<T: Clone + Send + Sync + 'static>(
    job: impl Future<Output = T> + Send + 'static,
    failed: impl FnOnce(tokio::task::JoinError) -> T + Send + 'static,
) -> (Job<T>, AbortHandle) {
    let task = tokio::spawn(job);
    let handle = task.abort_handle();
    (task.map(|done| done.unwrap_or_else(failed)).boxed().shared(), handle)
}

/// Reads the image configuration.
async fn config(origin: &ImageOrigin, descriptor: &Descriptor) -> Result<Arc<ImageConfig>, String> {
    let config = match origin.local_content(&descriptor.digest, MAX_CONFIG_SIZE).await {
        Some(json) => ImageConfig::parse(&json).map_err(|error| error.to_string()),
        None => origin.source.image_config(descriptor).await.map_err(|error| error.to_string()),
    };
    config.map(Arc::new)
}

/// Reads the image manifest and looks for the index.
async fn look(origin: &ImageOrigin, request: &LayerRequest, images: &Images) -> Result<ImageFacts, String> {
    let started = Instant::now();
    let (json, media_type) = match origin.local_content(&request.manifest, MAX_MANIFEST_SIZE).await {
        Some(json) => (json, None),
        None => {
            let root = origin.source.root().await.map_err(|error| error.to_string())?;
            let json = origin.source.manifest(&root).await.map_err(|error| error.to_string())?;
            (json, Some(root.media_type))
        }
    };
    let manifest = ImageManifest::parse(&json).map_err(|error| error.to_string())?;
    let media_type = media_type.unwrap_or_else(|| manifest.media_type.clone());
    let image = Descriptor::new(media_type, request.manifest.clone(), json.len() as u64);
    let wanted = Wanted { explicit: request.index.clone(), v1: images.options.v1, v2: images.options.v2 };
    // Layers below the one that is asked for are there already.
    let first = manifest.layers.iter().position(|layer| layer.digest == request.layer).unwrap_or(0);
    let layers = if images.options.always_unpack { &[] } else { &manifest.layers[first..] };
    let ahead = BlobOpener::new(origin, layers, images.options.min_layer_size);
    let finding = async {
        match &origin.registry {
            Some((client, repository)) => {
                find_index(client, repository, &image, &manifest, &wanted, &ahead).await
            }
            None => Ok(None),
        }
    };
    // Layers that are unpacked need it. Nobody waits for it here.
    let config = {
        let (origin, descriptor) = (origin.clone(), manifest.config.clone());
        let task = tokio::spawn(async move { config(&origin, &descriptor).await });
        let task = AbortOnDropHandle::new(task);
        task.map(|done| done.unwrap_or_else(|error| Err(error.to_string()))).boxed().shared()
    };
    let found = finding.await;
    let opened = ahead.opened();
    let mut reason = String::from("there is no SOCI index for this image");
    let index = match (found, &origin.store) {
        (Ok(Some(found)), _) => Some(found),
        // What was built on this machine and not pushed.
        (other, Some(store)) if wanted.v1 => {
            if let Err(error) = &other {
                reason = error.to_string();
            }
            find_local_index(store, &image, &manifest, wanted.explicit.as_ref()).await.ok().flatten()
        }
        (Err(error), _) => {
            reason = error.to_string();
            None
        }
        (Ok(None), _) => None,
    };
    match &index {
        Some(index) => tracing::info!(
            digest = %index.digest, image = %request.reference, layers = index.covered,
            milliseconds = started.elapsed().as_millis() as u64,
            "fetching SOCI artifacts using index descriptor"
        ),
        None => tracing::warn!(
            error = %reason,
            "unable to fetch SOCI artifacts for image \"{}\"", request.reference
        ),
    }
    // Without an index they are not read like this.
    let opened = if index.is_some() { opened } else { Opened::default() };
    let metrics = index.as_ref().map(|index| images.surroundings.metrics.layer(&index.digest));
    if let Some(metrics) = &metrics {
        metrics.observe(Operation::SociIndexFetch, started.elapsed());
    }
    let prefetch = index.as_ref().and_then(|index| prefetch(&manifest, index, origin, request, images));
    Ok(ImageFacts { manifest, index, _index_metrics: metrics, _prefetch: prefetch, reason, config, opened })
}

/// Begins to fetch what the image's container will read, of the layers that are going to be lazy.
fn prefetch(
    manifest: &ImageManifest,
    index: &FoundIndex,
    origin: &ImageOrigin,
    request: &LayerRequest,
    images: &Images,
) -> Option<DropGuard> {
    let options = &images.options;
    if options.always_unpack {
        return None;
    }
    let large = manifest.layers.iter().filter(|layer| layer.size >= options.min_layer_size);
    let keys = large.filter_map(|layer| {
        let ztoc = index.manifest.ztoc_of(&layer.digest)?.descriptor.digest.clone();
        Some(LayerKey { layer: layer.digest.clone(), ztoc })
    });
    images.surroundings.prefetch.pulled(&request.manifest, keys.collect(), &index.manifest, origin)
}

/// Why a layer is not read lazily.
struct NotLazy {
    /// In a word, for the metrics.
    kind: &'static str,
    /// For people.
    reason: String,
}

impl NotLazy {
    /// It was tried, and failed.
    const FAILED: &str = "failed";

    fn new(kind: &'static str, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// Processors from which on inflating a layer from its checkpoints is worth fetching its zTOC. Hashing and writing keep one
/// busy, and inflating from the start another.
const PROCESSORS: usize = 3;

/// Layers smaller than this, in bytes, are lazy whatever size their zTOCs are: either is fetched in about a round trip.
const SMALL_LAYER: u64 = 1 << 20;

/// Whether a zTOC is so large that the whole layer is fetched sooner.
fn is_large(ztoc: u64, layer: u64, percent: u64) -> bool {
    layer >= SMALL_LAYER && u128::from(ztoc) * 100 > u128::from(layer) * u128::from(percent)
}

/// A scratch directory as a path.
#[derive(Clone)]
struct KeptScratch(Arc<Scratch>);

impl AsRef<Path> for KeptScratch {
    fn as_ref(&self) -> &Path {
        self.0.path()
    }
}

/// Makes one layer ready.
struct LayerMaker {
    images: Arc<Images>,
    origin: ImageOrigin,
    unpacks: Arc<Semaphore>,
    pull: std::sync::Weak<Pull>,
    known: Arc<ImageFacts>,
}

impl LayerMaker {
    async fn make(self, position: usize) -> Outcome {
        let layer = &self.known.manifest.layers[position];
        let registry = self.origin.registry.as_ref().map(|(_, repository)| repository.host());
        let _pulling = self.images.layers.source().pulling(registry.unwrap_or_default());
        let NotLazy { kind, reason } = match self.lazy(layer, position).await {
            Ok(outcome) => return outcome,
            Err(not_lazy) => not_lazy,
        };
        let metrics = &self.images.surroundings.metrics;
        if kind == NotLazy::FAILED {
            metrics.count(DaemonCount::FuseMountFailure);
        }
        tracing::info!(%reason, "skipping mounting layer {} as FUSE mount: {reason}", layer.digest);
        match self.unpack(layer, position, &reason).await {
            Ok(outcome) => {
                metrics.count_eager_layer(kind);
                outcome
            }
            Err(error) => {
                metrics.count(DaemonCount::LocalMountFailure);
                Outcome::Defer { reason: format!("{reason}; cannot unpack: {error}"), indexed: true }
            }
        }
    }

    async fn lazy(&self, layer: &Descriptor, position: usize) -> Result<Outcome, NotLazy> {
        let options = &self.images.options;
        if options.always_unpack {
            return Err(NotLazy::new("parallel_pull", "pull_modes.parallel_pull_unpack is on"));
        }
        let Some(index) = &self.known.index else {
            return Err(NotLazy::new("no_index", self.known.reason.clone()));
        };
        let Some(ztoc) = index.manifest.ztoc_of(&layer.digest) else {
            return Err(NotLazy::new("no_ztoc", "no ztoc for layer"));
        };
        if layer.size < options.min_layer_size {
            let reason = format!(
                "its {} bytes are fewer than snapshotter.min_layer_size, {}",
                layer.size, options.min_layer_size
            );
            return Err(NotLazy::new("small", reason));
        }
        if let Some(limit) = options.max_ztoc_percent
            && is_large(ztoc.descriptor.size, layer.size, limit)
        {
            let reason = format!(
                "its zTOC of {} is more than {limit} % (snapshotter.max_ztoc_percent) of its {}",
                Size(ztoc.descriptor.size),
                Size(layer.size)
            );
            return Err(NotLazy::new("large_ztoc", reason));
        }
        if let Some(obstacle) = (self.images.surroundings.obstacle)() {
            return Err(NotLazy::new(NotLazy::FAILED, obstacle));
        }
        let (open, ztoc) = {
            let _slot = self.images.lazy_slots.acquire().await;
            // Not counting the time that other layers take.
            let opened = &self.known.opened;
            let preparing = self.images.layers.prepare(&self.origin, layer, ztoc.descriptor, opened);
            let prepared = self.images.in_time(preparing).await;
            let prepared = prepared.unwrap_or_else(|| Err("timeout waiting for layer to resolve".into()));
            prepared.map_err(|reason| NotLazy::new(NotLazy::FAILED, reason))?
        };
        // Without a slot: it may wait for layers below, which need one.
        let links_below =
            self.check(&ztoc, position).await.map_err(|reason| NotLazy::new(NotLazy::FAILED, reason))?;
        Ok(Outcome::Lazy { layer: open, ztoc, index: index.digest.clone(), size: layer.size, links_below })
    }

    /// Whether the layer makes sense over the layers below it, and has links to them. After it was committed there would be
    /// no way back.
    async fn check(&self, ztoc: &Arc<ztoc::Ztoc>, position: usize) -> Result<bool, String> {
        let own = Arc::clone(ztoc);
        let needs = tokio::task::spawn_blocking(move || Tree::check(&own));
        let needs = needs.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if needs == Needs::Nothing {
            return Ok(false);
        }
        // The layers below, as far as they are read lazily and part of this pull.
        let mut run = vec![Arc::clone(ztoc)];
        for below in (0..position).rev() {
            let job = self.pull.upgrade().and_then(|pull| lock(&pull.layers).get(&below).cloned());
            match job {
                Some(job) => match job.await {
                    Outcome::Lazy { ztoc, .. } => run.push(ztoc),
                    _ => break,
                },
                None => break,
            }
        }
        run.reverse();
        let merging = tokio::task::spawn_blocking(move || {
            let ztocs: Vec<_> = run.iter().map(|ztoc| &**ztoc).collect();
            let below = crate::content::tree::Below::Layers(crate::content::tree::OverlayNamespace::Trusted);
            Tree::merge(&ztocs, below).map(|_| true)
        });
        merging.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// The zTOC of a layer that is to be unpacked, if it has one and unpacking is faster with it. It need not be right.
    async fn ztoc_for_unpacking(&self, layer: &Descriptor) -> Option<Arc<ztoc::Ztoc>> {
        if std::thread::available_parallelism().map_or(1, usize::from) < PROCESSORS {
            return None;
        }
        let ztoc = self.known.index.as_ref()?.manifest.ztoc_of(&layer.digest)?.descriptor;
        let bytes = self.origin.fetch_ztoc(ztoc).await.ok()?;
        tokio::task::spawn_blocking(move || ztoc::Ztoc::parse(bytes).ok().map(Arc::new)).await.ok()?
    }

    async fn unpack(&self, layer: &Descriptor, position: usize, reason: &str) -> Result<Outcome, String> {
        // In this order: an image's layers that wait for each other keep no other image waiting.
        let _slot = self.unpacks.acquire().await;
        let _slot_of_all = self.images.unpack_slots.acquire().await;
        let pull = self.pull.upgrade().ok_or("the pull was given up")?;
        let config = pull.config(&self.known).await?;
        let diff_id = config.rootfs.diff_ids.get(position).cloned();
        let diff_id = diff_id.ok_or("the image's configuration does not list the layer")?;
        drop(pull);
        let scratch =
            self.images.scratch.create().map_err(|error| format!("cannot make a directory: {error}"))?;
        let mut options = unpack::Options::default();
        if self.images.surroundings.user_xattr {
            options.whiteouts = Whiteouts::UserXattr;
        }
        // It stays as long as anybody writes into it, even if nobody waits for that any more.
        let target = KeptScratch(Arc::clone(&scratch));
        let ztoc = self.ztoc_for_unpacking(layer).await;
        let implied = eager::unpack(&self.origin, layer, ztoc, Some(&diff_id), target, options)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Outcome::Unpacked {
            scratch,
            implied: Arc::new(implied),
            size: layer.size,
            reason: reason.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ztoc_is_large_in_proportion() {
        let mib = 1 << 20;
        assert!(is_large(19 * mib, 3 * mib, 200));
        assert!(!is_large(6 * mib, 3 * mib, 200));
        assert!(is_large(6 * mib + 1, 3 * mib, 200));
        // An ordinary layer: 4 %.
        assert!(!is_large(17 * mib, 438 * mib, 200) && is_large(17 * mib, 438 * mib, 3));
        assert!(!is_large(mib, mib - 1, 1));
        assert!(!is_large(u64::MAX, u64::MAX, u64::MAX));
    }
}
