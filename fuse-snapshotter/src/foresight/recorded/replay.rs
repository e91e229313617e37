//! Fetching what will be read, before it is.

use std::fmt::Display;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use soci_index::oci::DocumentError;
use soci_index::prefetch::{MAX_PREFETCH_SIZE, PrefetchArtifact, interleave};
use soci_index::recording::Recording;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::plan::{Layers, Plan, Step, Target};
use crate::content::{FetchError, LazyLayer};
use crate::image::{FetchArtifactError, ImageOrigin, LayerKey, OpenLayer, OpenLayers};

/// Artifacts that are fetched at the same time.
const PARALLEL: usize = 8;

/// Ranges that the artifacts of an image may have together: a layer's largest artifact, and more than any start needs.
const MAX_RANGES: usize = 1 << 17;

/// Most requests of one replay at the same time: few enough for the order to count.
const LIMIT: usize = 16;

/// Where it is known from what will be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplaySource {
    /// A start that was recorded on this node.
    Recording,
    /// Prefetch artifacts of the image's index.
    Artifacts,
}

/// Why a prefetch artifact is of no use.
#[derive(Debug, thiserror::Error)]
enum ArtifactError {
    #[error(transparent)]
    Fetch(#[from] FetchArtifactError),
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// How far a replay is.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) source: ReplaySource,
    pub(super) running: AtomicBool,
    /// Spans and compressed bytes that it fetched.
    pub(super) spans: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Requests that failed.
    pub(super) failed: AtomicU64,
    /// Bytes of its layers that were in the cache at its end; 0 before, and if it did not get to everything.
    pub(super) cached: AtomicU64,
}

impl Progress {
    /// A replay that begins, and counts on from another one.
    pub(super) fn new(source: ReplaySource, before: Option<&Self>) -> Self {
        let count = |of: fn(&Self) -> &AtomicU64| {
            AtomicU64::new(before.map_or(0, |before| of(before).load(Ordering::Relaxed)))
        };
        Self {
            source,
            running: AtomicBool::new(true),
            spans: count(|before| &before.spans),
            bytes: count(|before| &before.bytes),
            failed: count(|before| &before.failed),
            cached: AtomicU64::new(0),
        }
    }
}

/// Layers that may or may not be open.
struct Slots {
    keys: Vec<LayerKey>,
    open: Vec<Weak<OpenLayer>>,
}

impl Slots {
    fn new(keys: Vec<LayerKey>) -> Self {
        Self { open: keys.iter().map(|_| Weak::new()).collect(), keys }
    }

    fn refresh(&mut self, layers: &OpenLayers) {
        for (key, open) in self.keys.iter().zip(&mut self.open) {
            if open.strong_count() == 0 {
                *open = layers.get(key).as_ref().map(Arc::downgrade).unwrap_or_default();
            }
        }
    }

    /// A layer that is open. Not the open layer itself, so that it can be removed meanwhile.
    fn lazy(&self, layer: usize) -> Option<Arc<LazyLayer>> {
        Some(Arc::clone(self.open.get(layer)?.upgrade()?.lazy()))
    }
}

impl Layers for Slots {
    fn spans(&self, layer: usize, target: &Target) -> Option<Range<usize>> {
        let layer = self.lazy(layer)?;
        Some(match target {
            Target::Content { entry, range } => layer.spans_of(*entry, range),
            Target::Spans(spans) => {
                let count = layer.table().spans().len();
                spans.start.min(count)..spans.end.min(count)
            }
        })
    }

    fn size(&self, layer: usize, span: usize) -> u64 {
        self.lazy(layer).map_or(0, |layer| {
            let range = layer.table().spans().compressed(span);
            range.end - range.start
        })
    }
}

/// What a recording wants of layers, of which it need not know all. It may have been taken with other zTOCs: an entry
/// is the same in all zTOCs of a layer.
pub(super) fn recorded(recording: &Recording, keys: &[LayerKey]) -> Vec<Step> {
    let places: Vec<_> =
        recording.layers.iter().map(|known| keys.iter().position(|key| key.layer == known.layer)).collect();
    let steps = recording.all().into_iter().filter_map(|read| {
        let layer = *places.get(read.layer as usize)?;
        Some(Step {
            layer: layer?,
            target: Target::Content { entry: read.entry as usize, range: read.range.clone() },
        })
    });
    steps.collect()
}

/// What the artifacts of an index want of layers. Those that cannot be had, or are not what they should be, are left
/// out.
pub(super) async fn named(
    origin: &ImageOrigin,
    index: &soci_index::manifest::IndexManifest,
    keys: &[LayerKey],
) -> Vec<Step> {
    let mut fetching = Vec::new();
    for (layer, key) in keys.iter().enumerate() {
        let Some(prefetch) = index.prefetch_of(&key.layer) else { continue };
        fetching.push(async move {
            let json = origin.fetch("prefetch artifact", prefetch.descriptor, MAX_PREFETCH_SIZE).await?;
            Ok::<_, ArtifactError>((layer, PrefetchArtifact::parse(&json)?))
        });
    }
    let mut fetched = futures::stream::iter(fetching).buffered(PARALLEL);
    let mut artifacts: Vec<(usize, PrefetchArtifact)> = Vec::new();
    let mut ranges = 0;
    while let Some(result) = fetched.next().await {
        match result {
            Ok((layer, artifact)) if ranges + artifact.ranges().len() <= MAX_RANGES => {
                ranges += artifact.ranges().len();
                artifacts.push((layer, artifact));
            }
            Ok(_) => tracing::warn!("a prefetch artifact is not used: together they have too many ranges"),
            Err(error) => tracing::warn!(%error, "a prefetch artifact is not used"),
        }
    }
    let artifacts: Vec<_> = artifacts.iter().map(|(layer, artifact)| (*layer, artifact)).collect();
    interleave(&artifacts)
        .into_iter()
        .map(|(layer, range)| Step {
            layer,
            target: Target::Spans(range.start as usize..(range.end as usize).saturating_add(1)),
        })
        .collect()
}

/// Fetches all of a plan, as far as its layers are open, or are opened before `over`, with so many `requests` at the
/// same time.
pub(super) async fn replay(
    layers: Weak<OpenLayers>,
    keys: Vec<LayerKey>,
    mut plan: Plan,
    over: CancellationToken,
    requests: usize,
    progress: &Progress,
) {
    let Some(mut opened) = layers.upgrade().map(|layers| layers.opened()) else { return };
    let mut table = Slots::new(keys);
    // Tasks, so that spans are inflated on all processors.
    let mut flying = JoinSet::new();
    let mut given_up = false;
    let failed = |error: &dyn Display| {
        tracing::debug!(%error, "cannot prefetch");
        progress.failed.fetch_add(1, Ordering::Relaxed);
    };
    loop {
        // Before the look at which layers are open: what is opened after that is another change.
        opened.mark_unchanged();
        match layers.upgrade() {
            Some(layers) => table.refresh(&layers),
            None => return,
        }
        while flying.len() < requests.clamp(1, LIMIT)
            && let Some((layer, run)) = plan.next(&table)
        {
            let Some(layer) = table.lazy(layer) else { continue };
            flying.spawn(async move { layer.prefetch(run).await });
        }
        if flying.is_empty() && (plan.is_empty() || given_up) {
            break;
        }
        tokio::select! {
            Some(fetched) = flying.join_next() => match fetched {
                Ok(Ok((spans, bytes))) => {
                    progress.spans.fetch_add(spans as u64, Ordering::Relaxed);
                    progress.bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Ok(Err(FetchError::Cancelled)) => {}
                Ok(Err(error)) => failed(&error),
                Err(error) => failed(&error),
            },
            changed = opened.changed(), if !given_up => {
                given_up |= changed.is_err();
                plan.retry();
            }
            () = over.cancelled(), if !given_up => {
                given_up = true;
                plan.retry();
            }
        }
    }
    if plan.is_empty() {
        let cached =
            (0..table.keys.len()).filter_map(|layer| table.lazy(layer)).map(|layer| layer.cached_bytes());
        progress.cached.store(cached.sum(), Ordering::Relaxed);
    }
}
