//! Preparing a snapshot: for a container, or for a layer, which may turn out to be ready already.
//!
//! For a layer of an image with a SOCI index there are three ways, tried in this order:
//!
//! 1. it is read lazily, and committed here and now;
//! 2. it is fetched and unpacked by us, and committed;
//! 3. containerd gets the mounts, and fetches and unpacks it itself.
//!
//! After the first two containerd is told that the snapshot exists, and asks for the next layer.

use std::path::PathBuf;
use std::sync::Arc;

use ztoc::Ztoc;

use super::error::{SnapshotError, io_error};
use super::layer_runs::{Part, parts};
use super::mounts::Lower;
use super::mounts::Mount;
use super::record::{Mode, Record};
use super::store::{Commit, Kind, Labels, NewSnapshot, StoreError, Usage};
use super::{Snapshotter, labels, layout, rebase};
use crate::base::metrics::Operation;
use crate::content::tree::{Below, OverlayNamespace, Tree};
use crate::foresight::forecast;
use crate::image::inherit::inherit;
use crate::snapshotter::pull::{LayerRequest, Outcome, Position, Pulled, Scratch};

impl Snapshotter {
    /// Makes an active snapshot: of a container, or to unpack a layer into.
    ///
    /// # Errors
    /// [`SnapshotError::Ready`] if the layer is there already, which is what is hoped for; others if it fails.
    pub async fn prepare(
        self: &Arc<Self>,
        namespace: Option<&str>,
        key: &str,
        parent: &str,
        given: Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let Some(target) = given.get(labels::TARGET).filter(|target| !target.is_empty()).cloned() else {
            return self.create(Kind::Active, key, parent, given, None).await;
        };
        let namespace = namespace.ok_or(SnapshotError::NoNamespace)?;
        // Two clients that pull the same image would make each layer twice, and only one of them would get what was unpacked.
        let _turn = self.turns.take(&target).await;
        let request = LayerRequest::new(namespace, &target, &given)
            .map(|request| self.images.with_chosen_index(request));
        if self.is_there(&target, parent).await? {
            if let Ok(request) = &request {
                self.note_repository_of(request, &target).await;
            }
            return Err(SnapshotError::Ready(target));
        }
        let started = std::time::Instant::now();
        let position = if parent.is_empty() {
            let request = request.as_ref().map_err(ToString::to_string);
            Some(self.position(request, &target, &given).await)
        } else {
            None
        };
        // containerd has not named the layers below, and will when it commits the layer.
        let later = matches!(position, Some(Position::Higher | Position::Unknown(_)));
        let mut given = given;
        if later {
            given.insert(labels::PARENT_LATER.to_owned(), "true".to_owned());
        }
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                tracing::info!(
                    key, reason = %error, "defer-snapshot-runtime" = "true",
                    "deferring to container runtime"
                );
                return self.create(Kind::Active, key, parent, given, None).await;
            }
        };
        let layer = NewLayer { key, parent: parent.to_owned(), target: &target, request: &request, given };
        // Without these labels its place was found out by the pull, which is as new as it needs to be.
        let lowest = position == Some(Position::Lowest) && layer.given.contains_key(labels::DIFF_ID);
        let (mut outcome, pulled) = match position {
            None | Some(Position::Lowest) => {
                let made = self.images.layer(&request, lowest).await;
                let layers = self.images.layers_found(&request, made.1.as_ref());
                self.note_repository(&request, layers, &layer.parent).await;
                made
            }
            Some(Position::Higher) => {
                (Outcome::Defer { reason: rebase::REASON.to_owned(), indexed: true }, None)
            }
            Some(Position::Unknown(reason)) => (Outcome::Defer { reason, indexed: false }, None),
        };
        if let Outcome::Lazy { ztoc, links_below: true, .. } = &outcome
            && let Err(reason) = self.fits(&layer.parent, Arc::clone(ztoc)).await
        {
            outcome = Outcome::Defer { reason, indexed: true };
        }
        let milliseconds = started.elapsed().as_millis() as u64;
        match outcome {
            Outcome::Lazy { layer: open, ztoc, index, size, .. } => {
                let mode = Mode::Lazy { ztoc: open.key().ztoc.clone(), index };
                let committed = self.commit_layer(&layer, size, mode, true, None).await;
                open.lazy().metrics().observe(Operation::Mount, started.elapsed());
                // Only now may the layer be let go of: the store knows that it is used.
                drop(open);
                committed?;
                tracing::info!(
                    layer = %request.layer, key, milliseconds, "remote-snapshot-prepared" = "true",
                    "remote snapshot successfully prepared."
                );
                self.mount_ahead(pulled, &target, Some(ztoc));
                Err(SnapshotError::Ready(target))
            }
            Outcome::Unpacked { scratch, implied, size, reason } => {
                tracing::warn!(
                    layer = %request.layer, key, error = %reason, "remote-snapshot-prepared" = "false",
                    "failed to prepare remote snapshot"
                );
                let mode = Mode::Eager { reason: reason.clone() };
                let unpacked = Some((scratch, implied));
                if let Err(error) = self.commit_layer(&layer, size, mode, false, unpacked).await {
                    return self
                        .defer(layer, format!("{reason}; cannot use what was unpacked: {error}"), true)
                        .await;
                }
                tracing::info!(
                    layer = %request.layer, key, milliseconds, "local-snapshot-prepared" = "true",
                    "local snapshot successfully prepared"
                );
                self.mount_ahead(pulled, &target, None);
                Err(SnapshotError::Ready(target))
            }
            Outcome::Defer { reason, indexed } => {
                // That an image has no index was a warning already, once for all of its layers.
                if indexed {
                    tracing::warn!(
                        layer = %request.layer, key, error = %reason, "remote-snapshot-prepared" = "false",
                        "failed to prepare remote snapshot"
                    );
                } else {
                    tracing::info!(
                        layer = %request.layer, key, error = %reason, "remote-snapshot-prepared" = "false",
                        "failed to prepare remote snapshot"
                    );
                }
                self.defer(layer, reason, indexed).await
            }
        }
    }

    /// Lets containerd fetch and unpack a layer: it gets the mounts to unpack it into.
    async fn defer(
        self: &Arc<Self>,
        layer: NewLayer<'_>,
        reason: String,
        indexed: bool,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let message = if indexed {
            "deferring to container runtime"
        } else {
            "no valid SOCI index found; deferring to container runtime"
        };
        tracing::info!(
            layer = %layer.request.layer, key = layer.key, %reason, "defer-snapshot-runtime" = "true", "{message}"
        );
        let record = layer.record(0, Mode::Deferred { reason }).encode();
        self.create(Kind::Active, layer.key, &layer.parent, layer.given, record).await
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
    async fn fits(self: &Arc<Self>, parent: &str, ztoc: Arc<Ztoc>) -> Result<(), String> {
        let (snapshotter, parent) = (Arc::clone(self), parent.to_owned());
        let merging = tokio::task::spawn_blocking(move || {
            let text = |error: &dyn std::fmt::Display| error.to_string();
            let chain = match parent.as_str() {
                "" => Vec::new(),
                parent => snapshotter.store.get_any(parent).map_err(|error| text(&error))?.as_chain(),
            };
            let mut run = Vec::new();
            if let Some(Part::Run(below)) = parts(&chain).map_err(|error| error.to_string())?.pop() {
                for record in below.layers {
                    let Some(key) = record.lazy() else { continue };
                    let opened = snapshotter.layers.reopen(&key, &record);
                    run.push(opened.map_err(|error| text(&error))?.1);
                }
            }
            run.push(ztoc);
            let ztocs: Vec<_> = run.iter().map(|ztoc| &**ztoc).collect();
            let below = Below::Layers(OverlayNamespace::Trusted);
            Tree::merge(&ztocs, below).map(|_| ()).map_err(|error| text(&error))
        });
        merging.await.map_err(|error| error.to_string())?
    }

    /// Commits a layer that is ready.
    async fn commit_layer(
        self: &Arc<Self>,
        layer: &NewLayer<'_>,
        size: u64,
        mode: Mode,
        lazy: bool,
        unpacked: Option<(Arc<Scratch>, Arc<Vec<PathBuf>>)>,
    ) -> Result<(), SnapshotError> {
        let record = layer.record(size, mode).encode();
        let mut given = layer.given.clone();
        given.insert(labels::NAMESPACE.to_owned(), layer.request.namespace.clone());
        given.insert(labels::HAS_INDEX.to_owned(), "true".to_owned());
        if lazy {
            given.insert(labels::REMOTE.to_owned(), labels::REMOTE_VALUE.to_owned());
        }
        let created = {
            let (key, parent, labels) = (layer.key.to_owned(), layer.parent.clone(), layer.given.clone());
            self.store(move |store| {
                let parent = Some(parent.as_str());
                store.create(NewSnapshot { kind: Kind::Active, key: &key, parent, labels, record: None })
            })
            .await?
        };
        let committed = async {
            let usage = match unpacked {
                Some((scratch, implied)) => {
                    self.move_in(created.id, &created.parents, &scratch, &implied).await?
                }
                None => Usage::default(),
            };
            let (key, target) = (layer.key.to_owned(), layer.target.to_owned());
            self.store(move |store| {
                let commit = Commit { key: &key, name: &target, parent: None, labels: given, usage, record };
                match store.commit(commit.clone()) {
                    // The name is taken: by somebody who was faster, or over another parent. containerd looks for the label, not for
                    // the name.
                    Err(StoreError::AlreadyExists(_)) => {
                        store.commit(Commit { name: &format!("{target}/{}", created.id), ..commit })
                    }
                    committed => committed,
                }
            })
            .await
        };
        match committed.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let key = layer.key.to_owned();
                let _ = self.store(move |store| store.remove(&key)).await;
                self.removed.notify_one();
                Err(error)
            }
        }
    }

    /// Makes an unpacked layer the contents of a snapshot.
    async fn move_in(
        self: &Arc<Self>,
        id: u64,
        parents: &[super::store::Node],
        scratch: &Arc<Scratch>,
        implied: &Arc<Vec<PathBuf>>,
    ) -> Result<Usage, SnapshotError> {
        if !implied.is_empty() && !parents.is_empty() {
            let lower = self.lower(parents).await?.paths();
            let (scratch, implied) = (Arc::clone(scratch), Arc::clone(implied));
            let path = scratch.path().to_owned();
            let inheriting = tokio::task::spawn_blocking(move || inherit(scratch.path(), &implied, &lower));
            inheriting.await?.map_err(io_error("describe directories in", &path))?;
        }
        let target = self.layout.fs(id);
        self.layout.make(id, false).map_err(io_error("create", &target))?;
        // Renaming needs the name to be free or an empty directory.
        if !scratch.take(&target).map_err(io_error("move a layer to", &target))? {
            return Err(SnapshotError::Unavailable(
                "the unpacked layer was given to another snapshot".into(),
            ));
        }
        let usage = tokio::task::spawn_blocking(move || layout::usage(&target)).await?;
        usage.map_err(io_error("measure", &self.layout.fs(id)))
    }

    /// Mounts the trees of an image as soon as its topmost layer is there, and fetches what its program will read first: a
    /// container will want that next.
    fn mount_ahead(self: &Arc<Self>, pulled: Option<Pulled>, target: &str, ztoc: Option<Arc<Ztoc>>) {
        let Some(pulled) = pulled else { return };
        let (snapshotter, target) = (Arc::clone(self), target.to_owned());
        tokio::spawn(async move {
            let found = {
                let target = target.clone();
                snapshotter.store(move |store| store.get_any(&target)).await
            };
            // Removed already, if it is not there.
            let Ok(snapshot) = found else { return };
            let mounted = snapshotter.lower(&snapshot.as_chain()).await;
            // Until now, so that the tree did not need to parse it again.
            drop(ztoc);
            match mounted {
                Ok(lower) => snapshotter.expect_start(pulled, &lower).await,
                Err(error) => {
                    tracing::warn!(chain = target, %error, "cannot mount the image ahead of its container");
                }
            }
            let _ = tokio::task::spawn_blocking(crate::base::sys::give_back).await;
        });
    }
}

impl Snapshotter {
    /// Fetches what a container of an image will read first.
    async fn expect_start(&self, pulled: Pulled, lower: &Lower) {
        if !self.prefetch.guesses(pulled.manifest()) {
            return;
        }
        let Some(forest) = self.trees.mounted() else { return };
        let Some(command) = pulled.command().await else { return };
        // It holds the layers.
        drop(pulled);
        let mut trees = Vec::new();
        let parts = lower.directories.iter().rev().map(|(id, path)| {
            match forest.lookup(crate::fronts::forest::ROOT, id.to_string().as_bytes()) {
                Ok(root) => {
                    trees.push(*id);
                    forecast::Part::Tree(root.number)
                }
                Err(_) => forecast::Part::Directory(path.clone()),
            }
        });
        let root = forecast::Root::new(Arc::clone(&forest), parts.collect());
        let forecast = forecast::Forecast::new(root, command);
        self.trees.expect(&trees, &forecast);
    }
}

/// A layer to be committed.
struct NewLayer<'a> {
    key: &'a str,
    /// The snapshot that it is committed over.
    parent: String,
    target: &'a str,
    request: &'a LayerRequest,
    given: Labels,
}

impl NewLayer<'_> {
    fn record(&self, size: u64, mode: Mode) -> Record {
        Record {
            image: self.request.reference.to_string(),
            manifest: self.request.manifest.clone(),
            layer: self.request.layer.clone(),
            size,
            mode,
            others: Vec::new(),
        }
    }
}
