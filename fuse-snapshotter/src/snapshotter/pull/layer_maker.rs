//! Making one layer of an image ready: for lazy reading, or else unpacked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use registry::Descriptor;
use tokio::sync::Semaphore;
use ztoc::Ztoc;

use super::context::PullContext;
use super::error::{UnpackLayerError, WhyDeferred};
use super::facts::{ImageFacts, Job};
use super::pulled_layer::{LazyPulledLayer, PulledLayer, UnpackedLayer, check_over};
use super::scratch::Scratch;
use crate::base::lock::lock;
use crate::base::metrics::DaemonCount;
use crate::content::tree::{Needs, Tree};
use crate::image::unpack::{self, Whiteouts};
use crate::image::{ImageOrigin, WhyNotLazy, eager};

/// Processors from which on inflating a layer from its checkpoints is worth fetching its zTOC. Hashing and writing keep
/// one busy, and inflating from the start another.
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

/// The layers of a pull that are being made ready, or are, by their positions in the manifest.
pub(super) type LayerJobs = Mutex<HashMap<usize, Job<PulledLayer>>>;

/// Makes one layer ready.
pub(super) struct LayerMaker {
    pub(super) context: Arc<PullContext>,
    pub(super) origin: ImageOrigin,
    pub(super) unpacks: Arc<Semaphore>,
    /// The pull's. They go with the pull.
    pub(super) jobs: Weak<LayerJobs>,
    pub(super) facts: Arc<ImageFacts>,
}

impl LayerMaker {
    pub(super) async fn make(self, position: usize) -> PulledLayer {
        let layer = &self.facts.manifest.layers[position];
        let registry = self.origin.registry.as_ref().map(|(_, repository)| repository.host());
        let _pulling = self.context.layers.source().pulling(registry.unwrap_or_default());
        let why = match self.lazy(layer, position).await {
            Ok(layer) => return PulledLayer::Lazy(layer),
            Err(why) => why,
        };
        let metrics = &self.context.surroundings.metrics;
        if why.is_failure() {
            metrics.count(DaemonCount::FuseMountFailure);
        }
        tracing::info!(reason = %why, "skipping mounting layer {} as FUSE mount: {why}", layer.digest);
        match self.unpack(layer, position, &why).await {
            Ok(unpacked) => {
                metrics.count_eager_layer(why.metric());
                PulledLayer::Unpacked(unpacked)
            }
            Err(error) => {
                metrics.count(DaemonCount::LocalMountFailure);
                PulledLayer::Deferred(WhyDeferred::CannotUnpack { why, error: Arc::new(error) })
            }
        }
    }

    /// The zTOC of a layer that may be read lazily.
    fn ztoc_of(&self, layer: &Descriptor) -> Result<&Descriptor, WhyNotLazy> {
        let options = &self.context.options;
        if options.always_unpack {
            return Err(WhyNotLazy::ParallelPull);
        }
        let index = self.facts.index.as_ref().map_err(Clone::clone)?;
        let ztoc = index.manifest.ztoc_of(&layer.digest).ok_or(WhyNotLazy::NoZtoc)?.descriptor;
        if layer.size < options.min_layer_size {
            return Err(WhyNotLazy::Small { size: layer.size, limit: options.min_layer_size });
        }
        if let Some(percent) = options.max_ztoc_percent
            && is_large(ztoc.size, layer.size, percent)
        {
            return Err(WhyNotLazy::LargeZtoc { ztoc: ztoc.size, size: layer.size, percent });
        }
        match (self.context.surroundings.obstacle)() {
            Some(obstacle) => Err(WhyNotLazy::Machine { obstacle }),
            None => Ok(ztoc),
        }
    }

    async fn lazy(&self, layer: &Descriptor, position: usize) -> Result<LazyPulledLayer, WhyNotLazy> {
        let ztoc = self.ztoc_of(layer)?;
        let index = self.facts.index.as_ref().map_err(Clone::clone)?.digest.clone();
        let (open, ztoc) = {
            let _slot = self.context.lazy_slots.acquire().await;
            // Not counting the time that other layers take.
            let opened = &self.facts.opened;
            let preparing = self.context.layers.prepare(&self.origin, layer, ztoc, opened);
            self.context.in_time(preparing).await.ok_or(WhyNotLazy::Timeout)??
        };
        // Without a slot: it may wait for layers below, which need one.
        let links_below = self.check(&ztoc, position).await?;
        Ok(LazyPulledLayer { layer: open, ztoc, index, size: layer.size, links_below })
    }

    /// Whether the layer makes sense over the layers below it, and has links to them. After it was committed there
    /// would be no way back.
    async fn check(&self, ztoc: &Arc<Ztoc>, position: usize) -> Result<bool, WhyNotLazy> {
        let own = Arc::clone(ztoc);
        let needs = tokio::task::spawn_blocking(move || Tree::check(&own)).await??;
        if needs == Needs::Nothing {
            return Ok(false);
        }
        // The layers below, as far as they are read lazily and part of this pull.
        let mut run = Vec::new();
        for below in (0..position).rev() {
            let job = self.jobs.upgrade().and_then(|jobs| lock(&jobs).get(&below).cloned());
            match job {
                Some(job) => match job.await {
                    PulledLayer::Lazy(below) => run.push(below.ztoc),
                    _ => break,
                },
                None => break,
            }
        }
        run.reverse();
        let own = Arc::clone(ztoc);
        tokio::task::spawn_blocking(move || check_over(&run, &own)).await??;
        Ok(true)
    }

    /// The zTOC of a layer that is to be unpacked, if it has one and unpacking is faster with it. It need not be right.
    async fn ztoc_for_unpacking(&self, layer: &Descriptor) -> Option<Arc<Ztoc>> {
        if std::thread::available_parallelism().map_or(1, usize::from) < PROCESSORS {
            return None;
        }
        let ztoc = self.facts.index.as_ref().ok()?.manifest.ztoc_of(&layer.digest)?.descriptor;
        let bytes = self.origin.fetch_ztoc(ztoc).await.ok()?;
        tokio::task::spawn_blocking(move || Ztoc::parse(bytes).ok().map(Arc::new)).await.ok()?
    }

    async fn unpack(
        &self,
        layer: &Descriptor,
        position: usize,
        why: &WhyNotLazy,
    ) -> Result<UnpackedLayer, UnpackLayerError> {
        // In this order: an image's layers that wait for each other keep no other image waiting.
        let _slot = self.unpacks.acquire().await;
        let _slot_of_all = self.context.unpack_slots.acquire().await;
        if self.jobs.strong_count() == 0 {
            return Err(UnpackLayerError::GivenUp);
        }
        let config = self.facts.config(&self.origin).await?;
        let diff_id = config.rootfs.diff_ids.get(position).cloned();
        let diff_id = diff_id.ok_or(UnpackLayerError::NotListed)?;
        let scratch = self.context.scratch.create().map_err(UnpackLayerError::Directory)?;
        let mut options = unpack::Options::default();
        if self.context.surroundings.user_xattr {
            options.whiteouts = Whiteouts::UserXattr;
        }
        // It stays as long as anybody writes into it, even if nobody waits for that any more.
        let target = KeptScratch(Arc::clone(&scratch));
        let ztoc = self.ztoc_for_unpacking(layer).await;
        let implied = eager::unpack(&self.origin, layer, ztoc, Some(&diff_id), target, options).await?;
        Ok(UnpackedLayer { scratch, implied: Arc::new(implied), size: layer.size, why: why.clone() })
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
