//! Preparing a snapshot: for a container, or for a layer, which may turn out to be ready already.
//!
//! For a layer of an image with a SOCI index there are three ways, tried in this order:
//!
//! 1. it is read lazily, and committed here and now;
//! 2. it is fetched and unpacked by us, and committed;
//! 3. containerd gets the mounts, and fetches and unpacks it itself.
//!
//! After the first two containerd is told that the snapshot exists, and asks for the next layer.

use std::sync::Arc;
use std::time::Instant;

use ztoc::Ztoc;

use super::commit_layer::NewLayer;
use super::error::SnapshotError;
use super::labels;
use super::layer_runs::parts;
use super::mounts::Mount;
use super::pull::{
    FitError, LayerRequest, LazyPulledLayer, Position, Pulled, PulledLayer, RequestError, UnpackedLayer,
    WhyDeferred, WhyUnplaced, check_over,
};
use super::record::RecordedMode;
use super::service::Snapshotter;
use super::store::{Kind, Labels, StoreError};
use crate::base::metrics::Operation;
use crate::image::stacking::StackPart;

/// What came of preparing a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// The layer with this chain ID is there, and need not be unpacked.
    Ready(String),
    /// The snapshot is there, with these mounts.
    Mounts(Vec<Mount>),
}

/// A layer that is made ready, or is to be made by containerd.
struct Made {
    layer: PulledLayer,
    /// The image, if all of its layers were asked for.
    pulled: Option<Pulled>,
}

impl From<WhyDeferred> for Made {
    fn from(why: WhyDeferred) -> Self {
        Self { layer: PulledLayer::Deferred(why), pulled: None }
    }
}

impl Snapshotter {
    /// Makes an active snapshot: of a container, or to unpack a layer into; or makes a layer ready.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn prepare(
        self: &Arc<Self>,
        namespace: Option<&str>,
        key: &str,
        parent: &str,
        given: Labels,
    ) -> Result<Prepared, SnapshotError> {
        let Some(target) = given.get(labels::TARGET).filter(|target| !target.is_empty()).cloned() else {
            return self.create(Kind::Active, key, parent, given, None).await.map(Prepared::Mounts);
        };
        let namespace = namespace.ok_or(SnapshotError::NoNamespace)?;
        // Two clients that pull the same image would make each layer twice, and only one of them would get what was
        // unpacked.
        let _turn = self.turns.take(&target).await;
        let request = LayerRequest::new(namespace, &target, &given)
            .map(|request| self.images.with_chosen_index(request));
        if self.is_there(&target, parent).await? {
            if let Ok(request) = &request {
                self.note_repository_of(request, &target).await;
            }
            return Ok(Prepared::Ready(target));
        }
        let started = Instant::now();
        let place = self.place(&request, parent, &target, &given).await;
        let mut given = given;
        if place.as_ref().is_some_and(|place| !matches!(place, Ok(Position::Lowest))) {
            // containerd has not named the layers below, and will when it commits the layer.
            given.insert(labels::PARENT_LATER.to_owned(), "true".to_owned());
        }
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                tracing::info!(
                    key, reason = %error, "defer-snapshot-runtime" = "true",
                    "deferring to container runtime"
                );
                return self.create(Kind::Active, key, parent, given, None).await.map(Prepared::Mounts);
            }
        };
        let layer = NewLayer { key, parent: parent.to_owned(), target: &target, request: &request, given };
        let made = self.make(&layer, place).await;
        self.commit_made(layer, made, started).await
    }

    /// Where in its image a layer is; `None` if containerd has said what is below it.
    async fn place(
        &self,
        request: &Result<LayerRequest, RequestError>,
        parent: &str,
        target: &str,
        given: &Labels,
    ) -> Option<Result<Position, WhyUnplaced>> {
        if !parent.is_empty() {
            return None;
        }
        Some(self.position(request.as_ref().map_err(Clone::clone), target, given).await)
    }

    /// Makes a layer ready, as far as it can be where it is.
    async fn make(
        self: &Arc<Self>,
        layer: &NewLayer<'_>,
        place: Option<Result<Position, WhyUnplaced>>,
    ) -> Made {
        let lowest = match place {
            Some(Err(why)) => return WhyDeferred::Unplaced(why).into(),
            Some(Ok(Position::Higher)) => return WhyDeferred::WithoutParent.into(),
            // Without this label its place was found out by the pull, which is as new as it needs to be.
            Some(Ok(Position::Lowest)) => layer.given.contains_key(labels::DIFF_ID),
            None => false,
        };
        let (made, pulled) = self.images.layer(layer.request, lowest).await;
        let layers = self.images.layers_found(layer.request, pulled.as_ref());
        self.note_repository(layer.request, layers, &layer.parent).await;
        if let PulledLayer::Lazy(LazyPulledLayer { ztoc, links_below: true, .. }) = &made
            && let Err(error) = self.fits(&layer.parent, Arc::clone(ztoc)).await
        {
            let why = WhyDeferred::DoesNotFit(Arc::new(error));
            return Made { layer: PulledLayer::Deferred(why), pulled };
        }
        Made { layer: made, pulled }
    }

    /// Commits a layer that is ready, or gives containerd the mounts to unpack it into.
    async fn commit_made(
        self: &Arc<Self>,
        layer: NewLayer<'_>,
        made: Made,
        started: Instant,
    ) -> Result<Prepared, SnapshotError> {
        let milliseconds = started.elapsed().as_millis() as u64;
        let (key, request) = (layer.key, layer.request);
        match made.layer {
            PulledLayer::Lazy(lazy) => {
                let ztoc = Arc::clone(&lazy.ztoc);
                self.commit_lazy(&layer, lazy, started).await?;
                tracing::info!(
                    layer = %request.layer, key, milliseconds, "remote-snapshot-prepared" = "true",
                    "remote snapshot successfully prepared."
                );
                self.mount_ahead(made.pulled, layer.target, Some(ztoc));
                Ok(Prepared::Ready(layer.target.to_owned()))
            }
            PulledLayer::Unpacked(unpacked) => {
                log_not_lazy(&layer, &unpacked.why, true);
                if let Err(error) = self.commit_unpacked(&layer, &unpacked).await {
                    let (why, error) = (unpacked.why.clone(), Arc::new(error));
                    drop(unpacked);
                    return self.defer(layer, WhyDeferred::CannotUse { why, error }).await;
                }
                tracing::info!(
                    layer = %request.layer, key, milliseconds, "local-snapshot-prepared" = "true",
                    "local snapshot successfully prepared"
                );
                self.mount_ahead(made.pulled, layer.target, None);
                Ok(Prepared::Ready(layer.target.to_owned()))
            }
            PulledLayer::Deferred(why) => {
                // That an image has no index was a warning already, once for all of its layers.
                log_not_lazy(&layer, &why, why.has_index());
                self.defer(layer, why).await
            }
        }
    }

    async fn commit_lazy(
        self: &Arc<Self>,
        layer: &NewLayer<'_>,
        lazy: LazyPulledLayer,
        started: Instant,
    ) -> Result<(), SnapshotError> {
        let LazyPulledLayer { layer: open, index, size, .. } = lazy;
        let mode = RecordedMode::Lazy { ztoc: open.key().ztoc.clone(), index };
        let committed = self.commit_layer(layer, size, mode, None).await;
        open.lazy().metrics().observe(Operation::Mount, started.elapsed());
        // Only now may the layer be let go of: the store knows that it is used.
        drop(open);
        committed
    }

    async fn commit_unpacked(
        self: &Arc<Self>,
        layer: &NewLayer<'_>,
        unpacked: &UnpackedLayer,
    ) -> Result<(), SnapshotError> {
        let mode = RecordedMode::Eager { reason: unpacked.why.to_string() };
        self.commit_layer(layer, unpacked.size, mode, Some(unpacked)).await
    }

    /// Lets containerd fetch and unpack a layer: it gets the mounts to unpack it into.
    async fn defer(
        self: &Arc<Self>,
        layer: NewLayer<'_>,
        why: WhyDeferred,
    ) -> Result<Prepared, SnapshotError> {
        let message = if why.has_index() {
            "deferring to container runtime"
        } else {
            "no valid SOCI index found; deferring to container runtime"
        };
        tracing::info!(
            layer = %layer.request.layer, key = layer.key, reason = %why, "defer-snapshot-runtime" = "true", "{message}"
        );
        let record = layer.record(0, RecordedMode::Deferred { reason: why.to_string() }).encode();
        let made = self.create(Kind::Active, layer.key, &layer.parent, layer.given, record).await;
        made.map(Prepared::Mounts)
    }

    /// Whether the layer is committed already, for another namespace perhaps.
    async fn is_there(self: &Arc<Self>, target: &str, parent: &str) -> Result<bool, SnapshotError> {
        match self.stat(target).await {
            // Over the same parent only: containerd will look for it there.
            Ok(info) => Ok(info.kind == Kind::Committed
                && info.parent == parent
                && info.labels.get(labels::TARGET).is_some_and(|label| label == target)),
            Err(SnapshotError::Store(StoreError::NotFound(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a layer with links to layers below makes sense over the snapshots that there are. These may be served in
    /// another way than the pull would do it now, and once the layer is committed there is no way back.
    async fn fits(self: &Arc<Self>, parent: &str, ztoc: Arc<Ztoc>) -> Result<(), FitError> {
        let (snapshotter, parent) = (Arc::clone(self), parent.to_owned());
        let merging = tokio::task::spawn_blocking(move || {
            let below = snapshotter.ztocs_right_below(&parent)?;
            Ok(check_over(&below, &ztoc)?)
        });
        merging.await?
    }

    /// The zTOCs of the lazy layers that a chain of snapshots ends in, bottom first.
    fn ztocs_right_below(&self, parent: &str) -> Result<Vec<Arc<Ztoc>>, FitError> {
        let chain = match parent {
            "" => Vec::new(),
            parent => self.store.get_any(parent).map_err(SnapshotError::from)?.as_chain(),
        };
        let mut ztocs = Vec::new();
        if let Some(StackPart::Tree(run)) = parts(&chain)?.pop() {
            for record in run.layers {
                if let Some(key) = record.lazy() {
                    ztocs.push(self.layers.reopen(&key, &record)?.1);
                }
            }
        }
        Ok(ztocs)
    }
}

/// Says why a layer is not read lazily.
fn log_not_lazy(layer: &NewLayer<'_>, why: &dyn std::fmt::Display, is_warning: bool) {
    let NewLayer { key, request, .. } = layer;
    macro_rules! log {
        ($log:ident) => {
            tracing::$log!(
                layer = %request.layer, key, error = %why, "remote-snapshot-prepared" = "false",
                "failed to prepare remote snapshot"
            )
        };
    }
    if is_warning { log!(warn) } else { log!(info) }
}
