//! The trees of lazy layers: one FUSE file system, in which each tree is a directory that is bound to its snapshot.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use registry::Digest;
use rustix::mount::mount_bind;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use super::counting::Counting;
use super::error::{SnapshotError, io_error};
use super::layer_runs::LazyRun;
use super::layout::Layout;
use super::number_spaces::{FIRST_MAPPED_SLOT, TREES};
use super::store::{SnapshotStore, StoreError};
use crate::base::lock::lock;
use crate::base::metrics::Operation;
use crate::content::LazyLayer;
use crate::content::tree::{Below, OverlayNamespace, Tree};
use crate::foresight::forecast::Forecast;
use crate::fronts::forest::{Forest, LayerSlot, TreeSlot};
use crate::fronts::fuse::{FuseOptions, Negotiated, mount_forest};
use crate::fronts::mount_point::{detach_if_mounted, is_mounted};
use crate::fronts::{FuseStats, Mounted};
use crate::image::{OpenLayers, inherit};

/// The trees that are mounted.
#[derive(Debug)]
pub struct Trees {
    layout: Layout,
    store: Arc<SnapshotStore>,
    layers: Arc<OpenLayers>,
    options: FuseOptions,
    namespace: OverlayNamespace,
    pub(super) runtime: Handle,
    /// Mounted when the first tree needs it: without lazy layers FUSE is not needed.
    file_system: Mutex<Option<MountedForest>>,
    /// Set when everything is unmounted or left for good: a tree that is just being added must not mount the file
    /// system anew.
    closed: AtomicBool,
    /// Why it could not be mounted, when that was last tried.
    failure: Mutex<Option<String>>,
    /// Held while a tree is bound to its snapshot.
    binding: Mutex<()>,
    /// By the snapshot that is topmost in the tree. A second caller waits for the first.
    mounted: Mutex<HashMap<u64, Arc<OnceCell<Arc<MountedTree>>>>>,
    /// What is expected of the images, by the snapshots that are topmost in their trees.
    forecasts: Mutex<HashMap<u64, Kept>>,
    pub(super) counting: Counting,
}

/// What is expected of an image, and the fetching of it, which ends with the last of its trees.
#[derive(Debug, Clone)]
struct Kept {
    forecast: Arc<Forecast>,
    _fetching: Arc<AbortOnDropHandle<()>>,
}

/// The file system that all trees are in.
#[derive(Debug)]
struct MountedForest {
    forest: Arc<Forest>,
    mounted: Mounted,
}

/// A tree that is mounted.
#[derive(Debug)]
pub(super) struct MountedTree {
    /// Nothing of the layers below the tree shows through.
    pub(super) hides_all_below: bool,
    /// Whether the tree was made to lie over other layers, and so shows whiteouts.
    pub(super) shows_whiteouts: bool,
    /// Permission bits, owner and group of its root.
    pub(super) root: (u16, u32, u32),
    pub(super) slot: TreeSlot,
    /// Digest of the manifest of the image that its topmost layer was pulled for.
    pub(super) image: Digest,
    pub(super) layers: Vec<Arc<LazyLayer>>,
}

impl Trees {
    pub(super) fn new(
        layout: Layout,
        store: Arc<SnapshotStore>,
        layers: Arc<OpenLayers>,
        options: FuseOptions,
        namespace: OverlayNamespace,
        runtime: Handle,
        counting: Counting,
    ) -> Self {
        Self {
            layout,
            store,
            layers,
            options,
            namespace,
            runtime,
            file_system: Mutex::default(),
            closed: AtomicBool::new(false),
            failure: Mutex::default(),
            binding: Mutex::default(),
            mounted: Mutex::default(),
            forecasts: Mutex::default(),
            counting,
        }
    }

    /// The file system of the trees, mounted now if it was not yet.
    fn forest(self: &Arc<Self>) -> Result<Arc<Forest>, SnapshotError> {
        let mut file_system = lock(&self.file_system);
        if let Some(mounted) = &*file_system {
            return Ok(Arc::clone(&mounted.forest));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(SnapshotError::Unavailable("the daemon is stopping".to_owned()));
        }
        let path = self.layout.trees();
        std::fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        let forest = Arc::new(Forest::new().with_metrics(Arc::clone(&self.counting.metrics)));
        let (trees, runtime) = (Arc::downgrade(self), self.runtime.clone());
        forest.on_program(move |number| {
            if let Some(trees) = trees.upgrade() {
                runtime.spawn(async move { trees.program(number).await });
            }
        });
        let mounted = mount_forest(&forest, &path, self.options, self.runtime.clone())
            .map_err(|error| SnapshotError::Unavailable(error.to_string()));
        *lock(&self.failure) = mounted.as_ref().err().map(ToString::to_string);
        *file_system = Some(MountedForest { forest: Arc::clone(&forest), mounted: mounted? });
        Ok(forest)
    }

    /// Forgets the file system if it is served no longer, because its connection was aborted. Trees are then
    /// mounted anew when they are asked for.
    fn revive(&self) {
        let mut file_system = lock(&self.file_system);
        if file_system.as_ref().is_some_and(|served| served.mounted.is_finished()) {
            tracing::error!("the file system of the trees was ended by somebody else; mounting it again");
            lock(&self.mounted).clear();
            lock(&self.forecasts).clear();
            *file_system = None;
        }
    }

    /// Mounts the file system of the trees if need be. Returns why it cannot be mounted.
    pub(super) fn obstacle(self: &Arc<Self>) -> Option<String> {
        self.forest().err().map(|error| error.to_string())
    }

    /// Why no layer can be read lazily on this machine, if that was tried and failed.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// What the kernel has asked, if the trees are mounted.
    pub fn stats<T>(&self, ask: impl FnOnce(&FuseStats) -> T) -> Option<T> {
        lock(&self.file_system).as_ref().map(|served| ask(served.mounted.stats()))
    }

    /// The file system, if it is mounted.
    #[must_use]
    pub fn mounted(&self) -> Option<Arc<Forest>> {
        lock(&self.file_system).as_ref().map(|served| Arc::clone(&served.forest))
    }

    /// What the kernel lacks that would make reading faster, once it is known.
    #[must_use]
    pub fn kernel_lacks(&self) -> Vec<String> {
        self.negotiated(|negotiated| negotiated.lacking.clone()).unwrap_or_default()
    }

    /// The trees that are mounted, with the snapshots they are for.
    pub(super) fn all(&self) -> Vec<(u64, Arc<MountedTree>)> {
        let mounted = lock(&self.mounted);
        mounted.iter().filter_map(|(id, cell)| Some((*id, Arc::clone(cell.get()?)))).collect()
    }

    /// Whether the kernel can map the ids of trees, which are mounted.
    pub(super) fn map_ids(&self) -> bool {
        self.negotiated(|negotiated| negotiated.idmap).unwrap_or_default()
    }

    /// What was agreed with the kernel, if the trees are mounted.
    fn negotiated<T>(&self, ask: impl FnOnce(&Negotiated) -> T) -> Option<T> {
        lock(&self.file_system).as_ref().and_then(|served| served.mounted.negotiated()).map(ask)
    }

    /// Number of trees that are mounted.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.mounted).values().filter(|cell| cell.initialized()).count()
    }

    /// Whether no tree is mounted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mounts the tree of a run at its topmost snapshot. `lower`: the directories below it, bottom first.
    pub(super) async fn ensure(
        self: &Arc<Self>,
        run: &LazyRun,
        lower: &[PathBuf],
    ) -> Result<Arc<MountedTree>, SnapshotError> {
        self.revive();
        let cell = Arc::clone(lock(&self.mounted).entry(run.top).or_default());
        let adding = async {
            let (trees, run, lower) = (Arc::clone(self), run.clone(), lower.to_vec());
            let mounted = tokio::task::spawn_blocking(move || trees.add_tree(&run, &lower)).await?;
            // The memory of the merge, and of zTOCs that nothing else holds. The callers who wait for the tree do
            // not wait for this.
            drop(tokio::task::spawn_blocking(crate::base::sys::give_back));
            mounted
        };
        let mounted = cell.get_or_try_init(|| adding).await.map(Arc::clone);
        {
            // A failure is not remembered. But another caller may be trying now: the tree that it mounts must be known.
            let mut all = lock(&self.mounted);
            drop(cell);
            let unused = |known: &Arc<OnceCell<_>>| !known.initialized() && Arc::strong_count(known) == 1;
            if all.get(&run.top).is_some_and(unused) {
                all.remove(&run.top);
            }
        }
        let mounted = mounted?;
        if !is_mounted(&self.layout.fs(run.top)) {
            // Not by this process. An empty directory in its place would be a container without its files.
            tracing::warn!(snapshot = run.top, "a tree was unmounted; mounting it again");
            let (trees, run) = (Arc::clone(self), run.clone());
            tokio::task::spawn_blocking(move || {
                {
                    let _binding = lock(&trees.binding);
                    // Another caller may have been faster, and its mount may be in use already.
                    if !is_mounted(&trees.layout.fs(run.top)) {
                        trees.bind(&run.top.to_string(), run.top)?;
                    }
                }
                trees.check_wanted(&run)
            })
            .await??;
        }
        Ok(mounted)
    }

    /// A process begins to read a program or library: what will be read with it is fetched.
    async fn program(&self, number: u64) {
        let Some((layer, _)) = self.mounted().and_then(|forest| forest.content(number)) else { return };
        let forecast = {
            let forecasts = lock(&self.forecasts);
            let has =
                |mounted: &Arc<MountedTree>| mounted.layers.iter().any(|other| Arc::ptr_eq(other, &layer));
            let mut images = self.all().into_iter().filter(|(_, mounted)| has(mounted));
            images.find_map(|(id, _)| forecasts.get(&id).map(|kept| Arc::clone(&kept.forecast)))
        };
        if let Some(forecast) = forecast {
            forecast.program(number).await;
        }
    }

    /// Fetches what is expected of an image, as long as one of its trees is mounted.
    pub(super) fn expect(&self, trees: &[u64], forecast: &Arc<Forecast>) {
        let fetching = {
            let forecast = Arc::clone(forecast);
            self.runtime.spawn(async move {
                let started = std::time::Instant::now();
                let expected = forecast.start().await;
                tracing::info!(
                    files = expected.files,
                    bytes = expected.bytes,
                    milliseconds = started.elapsed().as_millis() as u64,
                    "fetched what the image's program reads at its start"
                );
                forecast.rest().await;
            })
        };
        let fetching = Arc::new(AbortOnDropHandle::new(fetching));
        let kept = Kept { forecast: Arc::clone(forecast), _fetching: fetching };
        let mut forecasts = lock(&self.forecasts);
        // A tree that has been removed meanwhile gets no forecast.
        let mounted = lock(&self.mounted);
        forecasts.extend(trees.iter().filter(|id| mounted.contains_key(id)).map(|id| (*id, kept.clone())));
    }

    /// Fails if the snapshot of a tree was removed before the tree was mounted, and removes the tree: the clean-up
    /// may have come before it.
    fn check_wanted(&self, run: &LazyRun) -> Result<(), SnapshotError> {
        let is_there = match self.store.get_any(&run.name) {
            Ok(snapshot) => snapshot.id == run.top,
            Err(StoreError::NotFound(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if is_there {
            return Ok(());
        }
        self.remove(run.top);
        // Directories that are not empty stay.
        let target = self.layout.fs(run.top);
        let _ = std::fs::remove_dir(&target);
        let _ = target.parent().map(std::fs::remove_dir);
        Err(StoreError::NotFound(format!("snapshot {} does not exist", run.name)).into())
    }

    fn add_tree(
        self: &Arc<Self>,
        run: &LazyRun,
        lower: &[PathBuf],
    ) -> Result<Arc<MountedTree>, SnapshotError> {
        let started = std::time::Instant::now();
        let unavailable = |error: &dyn std::fmt::Display| {
            SnapshotError::Unavailable(format!("cannot serve snapshot {}: {error}", run.top))
        };
        let forest = self.forest()?;
        let mut opened = Vec::with_capacity(run.layers.len());
        for (record, chain) in run.layers.iter().zip(&run.chains) {
            let key = record.lazy().ok_or_else(|| unavailable(&"a layer is not lazy"))?;
            let layer = self.layers.reopen(&key, record);
            let layer = layer.map_err(|error| unavailable(&error))?;
            for other in record.others.iter().filter(|other| other.layer != record.layer) {
                self.layers.add_twin(&layer.0, other, chain.clone());
            }
            opened.push(layer);
        }
        let below = if lower.is_empty() { Below::Nothing } else { Below::Layers(self.namespace) };
        let ztocs: Vec<_> = opened.iter().map(|(_, ztoc)| &**ztoc).collect();
        let mut tree = Tree::merge(&ztocs, below).map_err(|error| unavailable(&error))?;
        let target = self.layout.fs(run.top);
        inherit::inherit_tree(&mut tree, lower).map_err(io_error("read directories below", &target))?;
        let root = tree.inode(tree.root());
        let slot = TreeSlot(self.store.number(TREES, &run.top.to_string())?);
        let layers: Vec<_> = opened.iter().map(|(layer, _)| Arc::clone(layer.lazy())).collect();
        let image = run.layers.last().map(|record| record.manifest.clone());
        let mounted = MountedTree {
            slot,
            image: image.ok_or_else(|| unavailable(&"it has no layers"))?,
            layers,
            hides_all_below: tree.hides_all_below(),
            shows_whiteouts: below != Below::Nothing,
            root: (root.mode, root.uid, root.gid),
        };
        if opened.iter().any(|(layer, _)| layer.number() >= FIRST_MAPPED_SLOT) {
            return Err(unavailable(&"too many layers were read lazily since the start"));
        }
        let layers =
            opened.iter().map(|(layer, _)| (LayerSlot(layer.number()), Arc::clone(layer.lazy()))).collect();
        let name = run.top.to_string();
        let inodes = tree.len();
        let mounting = std::time::Instant::now();
        forest.add_tree(slot, &name, tree, layers, None).map_err(|error| unavailable(&error))?;
        let bound = {
            let _binding = lock(&self.binding);
            self.bind(&name, run.top)
        };
        if let Err(error) = bound {
            forest.remove_tree(slot);
            return Err(error);
        }
        self.check_wanted(run)?;
        for (layer, _) in &opened {
            layer.lazy().metrics().observe(Operation::FuseMount, mounting.elapsed());
            self.layers.start_background(layer, &self.runtime);
        }
        tracing::info!(
            snapshot = run.top,
            layers = run.layers.len(),
            inodes,
            milliseconds = started.elapsed().as_millis() as u64,
            "mounted a tree"
        );
        self.log_operations_later(&mounted.image);
        Ok(Arc::new(mounted))
    }

    /// Binds a tree to its snapshot. The caller holds `binding`.
    fn bind(&self, name: &str, id: u64) -> Result<(), SnapshotError> {
        let target = self.layout.fs(id);
        self.layout.make(id, false).map_err(io_error("create", &target))?;
        detach_if_mounted(&target);
        mount_bind(self.layout.trees().join(name), &target)
            .map_err(|error| io_error("mount a tree at", &target)(error.into()))
    }

    /// Unmounts the tree of a snapshot, if there is one.
    pub(super) fn remove(&self, id: u64) {
        detach_if_mounted(&self.layout.fs(id));
        lock(&self.mounted).remove(&id);
        lock(&self.forecasts).remove(&id);
        // Whether or not it is mounted here: it also has a number if an earlier process has mounted it, or another
        // caller is about to.
        let name = id.to_string();
        let forgotten = self.store.numbers(TREES).and_then(|numbers| {
            let Some((_, slot)) = numbers.into_iter().find(|(known, _)| *known == name) else {
                return Ok(());
            };
            if let Some(forest) = self.mounted() {
                forest.remove_tree(TreeSlot(slot));
            }
            self.store.forget_number(TREES, &name)
        });
        if let Err(error) = forgotten {
            tracing::warn!(snapshot = id, %error, "cannot forget the number of a tree");
        }
    }

    /// Leaves everything mounted, for a process that ends.
    pub(super) fn leave(&self) {
        self.closed.store(true, Ordering::Release);
        lock(&self.forecasts).clear();
        if let Some(served) = lock(&self.file_system).take() {
            served.mounted.leave();
        }
    }

    /// Unmounts everything. Processes that still use a tree get errors.
    pub(super) fn unmount_all(&self) {
        // A tree that is just being added must not mount the file system anew.
        self.closed.store(true, Ordering::Release);
        lock(&self.forecasts).clear();
        let ids: Vec<_> = lock(&self.mounted).drain().map(|(id, _)| id).collect();
        for id in ids {
            detach_if_mounted(&self.layout.fs(id));
        }
        // Dropping it unmounts it.
        *lock(&self.file_system) = None;
    }
}
