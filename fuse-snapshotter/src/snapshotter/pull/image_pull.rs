//! One pull of one image.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use registry::{Descriptor, Digest};
use soci_index::containerd::Endpoint;
use soci_index::source::RegistrySource;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::context::PullContext;
use super::error::{FactsError, WhyDeferred, WhyUnplaced};
use super::facts::{ImageFacts, Job, spawn};
use super::layer_maker::{LayerJobs, LayerMaker};
use super::pulled_layer::{Position, PulledLayer, is_topmost};
use super::request::LayerRequest;
use crate::base::lock::lock;
use crate::base::metrics::Count;
use crate::foresight::forecast::Command;
use crate::image::ImageOrigin;

/// A pull: an image manifest in a repository, and what is being done about its layers.
pub(super) struct Pull {
    context: Arc<PullContext>,
    request: LayerRequest,
    origin: ImageOrigin,
    known: Job<Result<Arc<ImageFacts>, Arc<FactsError>>>,
    layers: Arc<LayerJobs>,
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
    pub(super) fn start(context: Arc<PullContext>, request: LayerRequest) -> Arc<Self> {
        let origin = origin_of(&context, &request);
        let spent = Arc::new(AtomicBool::new(false));
        let looking = {
            let (origin, request, context, spent) =
                (origin.clone(), request.clone(), Arc::clone(&context), Arc::clone(&spent));
            async move {
                let known = ImageFacts::look(&origin, &request, &context).await;
                if known.as_ref().map_or(true, |known| known.index.is_err()) {
                    spent.store(true, Ordering::Release);
                }
                known.map(Arc::new).map_err(Arc::new)
            }
        };
        let (known, task) = spawn(looking, |error| Err(Arc::new(error.into())));
        let unpacks = Arc::new(Semaphore::new(context.options.parallel_unpacks));
        Arc::new(Self {
            context,
            request,
            origin,
            known,
            layers: Arc::default(),
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
    pub(super) async fn place(&self, request: &LayerRequest) -> Result<Position, WhyUnplaced> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        match self.known().await?.position(&self.origin, request).await {
            Some(0) => Ok(Position::Lowest),
            Some(_) => Ok(Position::Higher),
            None => Err(WhyUnplaced::NotThere { chain_id: request.chain_id.clone() }),
        }
    }

    /// What was found out about the image, as soon as it was.
    async fn known(&self) -> Result<Arc<ImageFacts>, Arc<FactsError>> {
        let found = self.context.in_time(self.known.clone()).await;
        found.unwrap_or_else(|| Err(Arc::new(FactsError::Timeout)))
    }

    /// Makes a layer ready, and begins with those above it. Also tells whether it is the image's topmost one.
    pub(super) async fn layer(&self, request: &LayerRequest) -> (PulledLayer, bool) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        lock(&self.asked).insert(request.chain_id.clone());
        let known = match self.known().await {
            Ok(known) => known,
            Err(error) => return (PulledLayer::Deferred(error.into()), false),
        };
        let layers = &known.manifest.layers;
        if let Err(why) = &known.index
            && !self.context.options.unpack_without_index
        {
            let why = WhyDeferred::NoIndex(why.clone());
            return (PulledLayer::Deferred(why), is_topmost(layers, &request.layer));
        }
        let Some(position) = known.position(&self.origin, request).await else {
            return (PulledLayer::Deferred(WhyDeferred::NoLayer(request.layer.clone())), false);
        };
        // By its position: an image may have the same layer twice.
        (self.layer_at(&known, position).await, position + 1 == layers.len())
    }

    /// What a container of the image runs, as its configuration says.
    pub(super) async fn command(&self) -> Option<Command> {
        let known = self.known.clone().await.ok()?;
        Command::of(&*known.config(&self.origin).await.ok()?)
    }

    async fn layer_at(&self, known: &Arc<ImageFacts>, position: usize) -> PulledLayer {
        let prepared = lock(&self.layers).contains_key(&position);
        for later in position..known.manifest.layers.len() {
            self.begin(known, later);
        }
        let Some(job) = lock(&self.layers).get(&position).cloned() else {
            return PulledLayer::Deferred(WhyDeferred::GivenUp);
        };
        let made = job.await;
        match &made {
            PulledLayer::Lazy(made) => {
                let what = if prepared { Count::ResolveCacheHit } else { Count::ResolveCacheMiss };
                made.layer.lazy().metrics().count(what);
            }
            // Unpacked layers are given away; and what failed is tried again.
            PulledLayer::Unpacked(_) | PulledLayer::Deferred(_) => {
                lock(&self.layers).remove(&position);
            }
        }
        if matches!(made, PulledLayer::Deferred(_)) {
            self.spent.store(true, Ordering::Release);
        }
        made
    }

    /// Begins to make a layer ready, unless that is under way.
    fn begin(&self, known: &Arc<ImageFacts>, position: usize) {
        let mut layers = lock(&self.layers);
        layers.entry(position).or_insert_with(|| {
            // The pull must go when nobody wants it any more, so its tasks do not hold it.
            let maker = LayerMaker {
                context: Arc::clone(&self.context),
                origin: self.origin.clone(),
                unpacks: Arc::clone(&self.unpacks),
                jobs: Arc::downgrade(&self.layers),
                facts: Arc::clone(known),
            };
            let failed = |error| PulledLayer::Deferred(WhyDeferred::Task(Arc::new(error)));
            let (job, task) = spawn(async move { maker.make(position).await }, failed);
            lock(&self.tasks).push(task);
            job
        });
    }
}

/// Where the image that a request is for comes from.
fn origin_of(context: &PullContext, request: &LayerRequest) -> ImageOrigin {
    let source = Arc::new(RegistrySource::new(
        context.client.clone(),
        request.reference.with_digest(request.manifest.clone()),
    ));
    let mut store = context.surroundings.store.clone();
    if let Some(address) = &context.options.artifacts_in {
        let endpoint = Endpoint::new(&address.to_string_lossy(), &request.namespace);
        store = store.map(|store| store.reading_containerd(endpoint));
    }
    ImageOrigin {
        source,
        registry: Some((context.client.clone(), request.reference.repository().clone())),
        store,
        local: (context.surroundings.content)(&request.namespace),
    }
}
