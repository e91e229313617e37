//! Metrics in Prometheus' text format: the series of the reference under their names, and some of our own.
//!
//! The names are an interface for dashboards, and common libraries do not support them: counters without `_total`,
//! one counter for many operations, series that must vanish together with their layer. The usual exporter forgets a
//! series only after it has been idle for some time, and other crates rename counters. The text format is small, so
//! it is written here (`scrape`). Code that counts holds a [`LayerMetrics`], which is a few atomics, so that no
//! read looks up a label.
//!
//! Values that another module has anyway, such as bytes fetched or the size of the cache, are not counted again:
//! [`Metrics::register`] takes a [`Collector`] that is asked whenever the metrics are read.

mod handles;
mod histogram;
mod scrape;
mod series;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use registry::Digest;

pub use handles::LayerMetrics;
pub use scrape::Scrape;
pub use series::{Count, DaemonCount, ImageOperation, Operation};

use crate::base::lock::lock;

/// `fuse_failure_state` rises at most this often, so that one broken file that is read in a loop does not flood it.
const FAILURE_STATE_EVERY: Duration = Duration::from_secs(5 * 60);

/// A source of values that are shown with the metrics.
///
/// It is asked at every scrape, on a thread that may wait for the disk, but not for the network.
pub trait Collector: Send + Sync {
    /// Adds its values.
    fn collect(&self, scrape: &mut Scrape);
}

impl<F: Fn(&mut Scrape) + Send + Sync> Collector for F {
    fn collect(&self, scrape: &mut Scrape) {
        self(scrape);
    }
}

/// All metrics of the daemon.
pub struct Metrics {
    layers: Mutex<BTreeMap<Digest, Arc<LayerMetrics>>>,
    /// Counts that belong to no single layer.
    no_layer: LayerMetrics,
    daemon: [AtomicU64; DaemonCount::ALL.len()],
    eager: Mutex<BTreeMap<&'static str, u64>>,
    fetch_errors: Mutex<BTreeMap<&'static str, u64>>,
    started: Instant,
    /// When `fuse_failure_state` rose last.
    failed: Mutex<Option<Duration>>,
    collectors: Mutex<Vec<Arc<dyn Collector>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            layers: Mutex::default(),
            no_layer: LayerMetrics::default(),
            daemon: Default::default(),
            eager: Mutex::default(),
            fetch_errors: Mutex::default(),
            started: Instant::now(),
            failed: Mutex::default(),
            collectors: Mutex::default(),
        }
    }
}

impl Metrics {
    /// No layers, no images, all counters at 0.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The metrics of a layer, or of an index for [`Operation::SociIndexFetch`]. Keep it instead of asking again; it
    /// is shown until [`Self::remove_layer`].
    pub fn layer(&self, digest: &Digest) -> Arc<LayerMetrics> {
        lock(&self.layers).entry(digest.clone()).or_default().clone()
    }

    /// Shows a layer no longer. Later counts for it are lost.
    pub fn remove_layer(&self, digest: &Digest) {
        lock(&self.layers).remove(digest);
    }

    /// Shows layers and indexes no longer that are not wanted, except those whose metrics are still held.
    pub fn retain_layers(&self, wanted: impl Fn(&Digest) -> bool) {
        lock(&self.layers).retain(|digest, handle| wanted(digest) || Arc::strong_count(handle) > 1);
    }

    /// The counts that belong to no single layer. They are shown with an empty label.
    pub fn no_layer(&self) -> &LayerMetrics {
        &self.no_layer
    }

    /// Counts something that is not about one layer.
    pub fn count(&self, what: DaemonCount) {
        if let Some(counter) = self.daemon.get(what as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request of the kernel that failed: for its layer ([`Self::no_layer`] if there is none), and for
    /// `fuse_failure_state`, which rises at most once in five minutes.
    pub fn count_fuse_failure(&self, layer: &LayerMetrics, what: Count) {
        layer.count(what);
        self.note_failure(self.started.elapsed());
    }

    /// `now` is the time since the start.
    fn note_failure(&self, now: Duration) {
        let mut last = lock(&self.failed);
        if last.is_none_or(|last| now.saturating_sub(last) >= FAILURE_STATE_EVERY) {
            *last = Some(now);
            self.count(DaemonCount::FuseFailureState);
        }
    }

    /// Counts a layer that is not read lazily. `reason` is one of a few words, such as `no_ztoc`.
    pub fn count_eager_layer(&self, reason: &'static str) {
        *lock(&self.eager).entry(reason).or_default() += 1;
    }

    /// Counts a fetch that failed, by what is to blame.
    pub fn count_fetch_error(&self, kind: &'static str) {
        *lock(&self.fetch_errors).entry(kind).or_default() += 1;
    }

    /// Adds a collector, which is asked whenever the metrics are read.
    pub fn register(&self, collector: impl Collector + 'static) {
        lock(&self.collectors).push(Arc::new(collector));
    }

    /// All metrics as text, as `/metrics` answers.
    #[must_use]
    pub fn render(&self) -> String {
        let mut scrape = Scrape::default();
        scrape.build_info();
        for what in DaemonCount::ALL {
            let count = self.daemon.get(what as usize).map_or(0, |counter| counter.load(Ordering::Relaxed));
            scrape.set(&series::OPERATION_COUNT, &["", what.name()], count);
        }
        scrape.background_queue(0);
        self.no_layer.collect("", &mut scrape);
        for (digest, layer) in lock(&self.layers).iter() {
            layer.collect(digest.as_str(), &mut scrape);
        }
        for (reason, count) in lock(&self.eager).iter() {
            scrape.set(&series::EAGER_LAYERS, &[reason], *count);
        }
        for (kind, count) in lock(&self.fetch_errors).iter() {
            scrape.set(&series::FETCH_ERRORS, &[kind], *count);
        }
        // Without the lock: a collector may register another one.
        let collectors = lock(&self.collectors).clone();
        collectors.iter().for_each(|collector| collector.collect(&mut scrape));
        scrape.text()
    }
}
