//! Recorded prefetch: the second cold start of an image knows what the first one read.
//!
//! What the first container of an image reads is recorded until it has read nothing new for some seconds (`session`,
//! with `callers` and `draft`), and kept on disk (`files`) even when the image is removed. When the image is pulled
//! again, or its cache was evicted, the recorded ranges are fetched in the order of reading, beginning with the first
//! layer that is open (`replay`), in few requests (`plan`). On a node that has no recording, the prefetch artifacts
//! that the image's index names take its place: `soci prefetch record` makes such artifacts of a recording.
//!
//! A recording of this node wins over artifacts: it is what happens here. While a replay runs, the start is recorded
//! again: reads count whether or not they had to wait, so a better replay does not make a poorer recording.
//!
//! Nobody waits for any of this, and nothing fails with it.

mod callers;
mod draft;
mod files;
mod plan;
mod replay;
mod session;
mod start;
mod status;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use registry::Digest;
use soci_index::manifest::IndexManifest;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use replay::ReplaySource;
pub use start::{PrefetchOptions, Start};
pub use status::{RecordingStatus, ReplayStatus};

use crate::base::lock::lock;
use crate::base::metrics::Scrape;
use crate::image::{ImageOrigin, LayerKey, OpenLayers};
use draft::{continued, is_better};
use files::Recordings;
use plan::Plan;
use replay::Progress;
use session::Session;

/// Records starts and replays them.
pub struct Prefetch {
    options: PrefetchOptions,
    files: Recordings,
    layers: Arc<OpenLayers>,
    runtime: Handle,
    images: Mutex<HashMap<Digest, Image>>,
    /// Spans and bytes of replays whose image is gone.
    past: [AtomicU64; 2],
}

impl std::fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefetch").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What is known of an image while it is here.
#[derive(Default)]
struct Image {
    /// The replay, or looking for what to replay.
    task: Option<Task>,
    replay: Option<Arc<Progress>>,
    session: Option<Arc<Session>>,
    /// The container whose start was recorded, and when it began.
    recorded: Option<(u64, Instant)>,
}

/// A task that ends with its image.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Image {
    fn is_replaying(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.0.is_finished())
    }
}

impl Prefetch {
    /// Keeps recordings in `directory`.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn new(
        directory: &Path,
        options: PrefetchOptions,
        layers: Arc<OpenLayers>,
        runtime: Handle,
    ) -> std::io::Result<Self> {
        Ok(Self {
            options,
            files: Recordings::open(directory)?,
            layers,
            runtime,
            images: Mutex::default(),
            past: Default::default(),
        })
    }

    /// An image is being pulled, with these layers read lazily, bottom first: begins to fetch what its container will
    /// read, as its layers are opened. The result stands for the pull: when it is dropped, no further layers are waited
    /// for.
    pub fn pulled(
        self: &Arc<Self>,
        manifest: &Digest,
        keys: Vec<LayerKey>,
        index: &IndexManifest,
        origin: &ImageOrigin,
    ) -> Option<DropGuard> {
        if !self.options.replay {
            return None;
        }
        let over = CancellationToken::new();
        self.replay(manifest, keys, Some((index.clone(), origin.clone())), over.clone());
        Some(over.drop_guard())
    }

    /// Whether it is to be guessed what a container of an image will read: nothing says it.
    #[must_use]
    pub fn guesses(&self, manifest: &Digest) -> bool {
        let known = lock(&self.images).get(manifest).is_some_and(|image| image.replay.is_some());
        self.options.forecast && !known
    }

    /// A container is about to be started: records what it reads if it is the first one, and replays what was recorded
    /// if the cache has lost something of it.
    pub fn starts(self: &Arc<Self>, start: &Start) {
        if start.layers.is_empty() {
            return;
        }
        if self.options.record {
            self.record(start);
        }
        if self.options.replay {
            let keys: Vec<_> = start.layers.iter().map(|layer| layer.key().clone()).collect();
            let cached: u64 = start.layers.iter().map(|layer| layer.lazy().cached_bytes()).sum();
            let is_done = lock(&self.images).get(&start.manifest).is_some_and(|image| {
                let done = image.replay.as_ref().map_or(0, |replay| replay.cached.load(Ordering::Relaxed));
                image.is_replaying() || (1..=cached).contains(&done)
            });
            if !is_done {
                let over = CancellationToken::new();
                over.cancel();
                self.replay(&start.manifest, keys, None, over);
            }
        }
    }

    fn replay(
        self: &Arc<Self>,
        manifest: &Digest,
        keys: Vec<LayerKey>,
        artifacts: Option<(IndexManifest, ImageOrigin)>,
        over: CancellationToken,
    ) {
        let mut images = lock(&self.images);
        let image = images.entry(manifest.clone()).or_default();
        if image.is_replaying() {
            return;
        }
        let (prefetch, manifest) = (Arc::clone(self), manifest.clone());
        let task = self.runtime.spawn(async move {
            let (source, steps) = prefetch.steps(&manifest, &keys, artifacts).await?;
            let progress = prefetch.begin(&manifest, source)?;
            let (layers, requests) = (Arc::downgrade(&prefetch.layers), prefetch.options.requests);
            // It must not keep alive what it belongs to.
            drop(prefetch);
            let began = Instant::now();
            replay::replay(layers, keys, Plan::new(steps), over, requests, &progress).await;
            progress.running.store(false, Ordering::Release);
            tracing::info!(
                image = %manifest, ?source,
                spans = progress.spans.load(Ordering::Relaxed),
                bytes = progress.bytes.load(Ordering::Relaxed),
                failed = progress.failed.load(Ordering::Relaxed),
                milliseconds = began.elapsed().as_millis() as u64,
                "prefetched what the start will read"
            );
            Some(())
        });
        image.task = Some(Task(task.abort_handle()));
    }

    /// What the replay of an image fetches, and where that is known from; `None` if nothing is.
    async fn steps(
        self: &Arc<Self>,
        manifest: &Digest,
        keys: &[LayerKey],
        artifacts: Option<(IndexManifest, ImageOrigin)>,
    ) -> Option<(ReplaySource, Vec<plan::Step>)> {
        let (prefetch, manifest) = (Arc::clone(self), manifest.clone());
        let recording = tokio::task::spawn_blocking(move || prefetch.files.load(&manifest)).await.ok()?;
        if let Some(recording) = recording {
            return Some((ReplaySource::Recording, replay::recorded(&recording, keys)));
        }
        let (index, origin) = artifacts?;
        let steps = replay::named(&origin, &index, keys).await;
        (!steps.is_empty()).then_some((ReplaySource::Artifacts, steps))
    }

    /// Shows that a replay begins. It counts on from the one before. `None` if the image is gone.
    fn begin(&self, manifest: &Digest, source: ReplaySource) -> Option<Arc<Progress>> {
        let mut images = lock(&self.images);
        let image = images.get_mut(manifest)?;
        let progress = Arc::new(Progress::new(source, image.replay.as_deref()));
        image.replay = Some(Arc::clone(&progress));
        Some(progress)
    }

    /// Keeps counting what was fetched for an image that is gone.
    fn forget(&self, image: &Image) {
        if let Some(replay) = &image.replay {
            for (past, now) in self.past.iter().zip([&replay.spans, &replay.bytes]) {
                past.fetch_add(now.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    fn record(self: &Arc<Self>, start: &Start) {
        let mut images = lock(&self.images);
        let image = images.entry(start.manifest.clone()).or_default();
        if let Some(session) = &image.session {
            return session.prepared();
        }
        let continues = match image.recorded {
            None => false,
            // What prepares a container may read from it long before it is started.
            Some((snapshot, began))
                if snapshot == start.snapshot && began.elapsed() < self.options.longest =>
            {
                true
            }
            Some(_) => return,
        };
        let session = Arc::new(Session::begin(start));
        image.session = Some(Arc::clone(&session));
        image.recorded.get_or_insert((start.snapshot, Instant::now()));
        let (prefetch, manifest) = (Arc::downgrade(self), start.manifest.clone());
        let PrefetchOptions { quiet, longest, .. } = self.options;
        self.runtime.spawn(async move {
            session.over(quiet, longest).await;
            let Some(prefetch) = prefetch.upgrade() else { return };
            let finishing =
                tokio::task::spawn_blocking(move || prefetch.finish(&manifest, &session, continues));
            let _ = finishing.await;
        });
    }

    /// Ends a recording, and keeps it if it is worth it.
    fn finish(&self, manifest: &Digest, session: &Arc<Session>, continues: bool) {
        let recording = session.recording();
        {
            let mut images = lock(&self.images);
            // Of an image that was removed meanwhile there is nothing to be changed.
            if let Some(image) = images.get_mut(manifest)
                && image.session.as_ref().is_some_and(|running| Arc::ptr_eq(running, session))
            {
                image.session = None;
                if recording.is_none() && !continues {
                    // The next start is the first one that reads.
                    image.recorded = None;
                }
            }
        }
        let Some(new) = recording else { return };
        let known = self.files.load(manifest);
        let kept = match known {
            Some(known) if continues => continued(known, &new),
            known if is_better(known.as_ref(), &new) => new,
            _ => {
                return tracing::debug!(image = %manifest, cold = new.cold, reads = new.all().len(),
                    "the start was recorded, and the recording that there is is better");
            }
        };
        match self.files.save(&kept) {
            Ok(()) => tracing::info!(
                image = %manifest, reads = kept.all().len(), bytes = kept.bytes(), waited = kept.waited, cold = kept.cold,
                "recorded what the start read"
            ),
            Err(error) => tracing::warn!(image = %manifest, %error, "cannot keep the recording of a start"),
        }
    }

    /// Stops what is done for an image that is being removed. What was recorded until now is kept.
    pub fn cancel(&self, manifest: &Digest) {
        let Some(image) = lock(&self.images).remove(manifest) else { return };
        if let Some(session) = &image.session {
            session.stop.notify_one();
        }
        self.forget(&image);
    }

    /// Ends all recordings, before the process ends. May wait for the disk.
    pub fn close(&self) {
        let images = std::mem::take(&mut *lock(&self.images));
        for (manifest, image) in images {
            if let Some(session) = &image.session {
                self.finish(&manifest, session, false);
            }
        }
    }

    /// Removes recordings of images that are not `used` any more, but not all of them at once.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn collect(&self, used: &HashSet<Digest>) -> std::io::Result<()> {
        lock(&self.images).retain(|manifest, image| {
            let wanted = used.contains(manifest) || image.session.is_some() || image.is_replaying();
            if !wanted {
                self.forget(image);
            }
            wanted
        });
        self.files.collect(&used.iter().map(|digest| digest.hex().to_owned()).collect())
    }

    /// How an image stands: its recording, and its replay. May wait for the disk.
    #[must_use]
    pub fn status(&self, manifest: &Digest) -> (Option<RecordingStatus>, Option<ReplayStatus>) {
        let (session, replay) = {
            let images = lock(&self.images);
            let image = images.get(manifest);
            let session = image.and_then(|image| image.session.clone());
            let replay = image.and_then(|image| image.replay.as_ref()).map(|progress| {
                let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                ReplayStatus {
                    source: progress.source,
                    running: progress.running.load(Ordering::Acquire),
                    spans: get(&progress.spans),
                    bytes: get(&progress.bytes),
                    failed: get(&progress.failed),
                }
            });
            (session, replay)
        };
        let recording = match session.map(|session| session.progress()) {
            Some((reads, bytes)) => {
                Some(RecordingStatus { running: true, taken: 0, cold: false, reads, bytes, waited: 0 })
            }
            None => self.files.load(manifest).map(|kept| RecordingStatus {
                running: false,
                taken: kept.taken,
                cold: kept.cold,
                reads: kept.all().len(),
                bytes: kept.bytes(),
                waited: kept.waited,
            }),
        };
        (recording, replay)
    }

    /// Says what replays have fetched.
    pub(crate) fn collect_metrics(&self, scrape: &mut Scrape) {
        let mut sums = self.past.each_ref().map(|past| past.load(Ordering::Relaxed));
        for image in lock(&self.images).values() {
            if let Some(replay) = &image.replay {
                sums[0] += replay.spans.load(Ordering::Relaxed);
                sums[1] += replay.bytes.load(Ordering::Relaxed);
            }
        }
        scrape.prefetched(sums[0], sums[1]);
    }
}
