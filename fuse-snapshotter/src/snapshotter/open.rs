//! Opening a snapshotter: its parts are built here, in the order in which they need each other, each with its own options.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use registry::Client;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::counting::Counting;
use super::error::{SnapshotError, io_error};
use super::idmap::mapper::IdMapper;
use super::keyed_lock::KeyedLock;
use super::layout::Layout;
use super::options::{FetchOptions, Options, TreeOptions};
use super::pull::{ContentOfNamespace, Images, PullOptions, ScratchRoot, Surroundings};
use super::root::{check_overlay, check_owner, in_user_namespace};
use super::service::Snapshotter;
use super::store::SnapshotStore;
use super::trees::Trees;
use super::{number_spaces, restart, seek};
use crate::base::metrics::Metrics;
use crate::content::FetchContext;
use crate::content::cache::CacheRoot;
use crate::content::tree::OverlayNamespace;
use crate::foresight::recorded::{Prefetch, PrefetchOptions};
use crate::fronts::fuse::FuseOptions;
use crate::image::{OpenLayers, OpenOptions};

impl Snapshotter {
    /// Opens the snapshotter of a root directory, and detaches what a process before this one left mounted there.
    ///
    /// # Errors
    /// If the root cannot be used, or another process uses it.
    pub fn open(options: Options, runtime: Handle) -> Result<Arc<Self>, SnapshotError> {
        let Options { root, client, content, user_namespace_program, id_mapping, metrics, settings } =
            options;
        let (ground, dead) = Ground::prepare(&root, settings.check_overlay, client, metrics, runtime)?;
        let cache = ground.cache(settings.fetch)?;
        let layers = ground.layers(settings.layers, settings.fetch, &cache)?;
        let trees = ground.trees(settings.trees, &layers);
        let prefetch = ground.prefetch(settings.prefetch, &layers)?;
        let surroundings = ground.surroundings(&root, Arc::clone(&content), &trees, &prefetch);
        let images = ground.images(settings.pull, surroundings, &layers)?;
        let Ground { layout, store, user_xattr, client, .. } = ground;
        let snapshotter = Arc::new(Self {
            layout,
            store,
            layers,
            cache,
            images,
            trees,
            prefetch,
            overlay_options: overlay_options(user_xattr),
            id_mapper: IdMapper::new(id_mapping, user_namespace_program),
            removed: Notify::new(),
            left: AtomicBool::new(false),
            turns: KeyedLock::default(),
            noting: tokio::sync::Mutex::default(),
            cleaning: tokio::sync::Mutex::default(),
        });
        let snapshotter_of_seek = Arc::downgrade(&snapshotter);
        snapshotter
            .layers
            .seek_with(Arc::new(seek::ImagesOfContainerd { snapshotter: snapshotter_of_seek, content }));
        snapshotter.register_metrics(vec![client]);
        tracing::debug!(dead, "detached mounts of an earlier process");
        Ok(snapshotter)
    }
}

/// What all parts stand on.
struct Ground {
    layout: Layout,
    store: Arc<SnapshotStore>,
    /// This process has not the whole range of user ids.
    user_xattr: bool,
    client: Client,
    metrics: Arc<Metrics>,
    runtime: Handle,
}

impl Ground {
    /// Checks and prepares the root directory. Nothing is mounted yet. Also returns how many mounts of an earlier process
    /// were detached.
    fn prepare(
        root: &Path,
        try_overlay: bool,
        client: Client,
        metrics: Arc<Metrics>,
        runtime: Handle,
    ) -> Result<(Self, usize), SnapshotError> {
        check_owner(root)?;
        let layout = Layout::create(root).map_err(io_error("create", root))?;
        // The store first: it is locked, and what follows must not be done twice at a time.
        let store = Arc::new(SnapshotStore::open(&layout.store())?);
        let dead = restart::detach_all(&layout);
        let user_xattr = in_user_namespace();
        if try_overlay {
            check_overlay(&layout, user_xattr)?;
        }
        number_spaces::begin(&store)?;
        Ok((Self { layout, store, user_xattr, client, metrics, runtime }, dead))
    }

    /// The cache of contents.
    fn cache(&self, options: FetchOptions) -> Result<Arc<CacheRoot>, SnapshotError> {
        let cache = CacheRoot::open(&self.layout.cache(), options.cache_size);
        cache.map(Arc::new).map_err(|error| SnapshotError::Unavailable(error.to_string()))
    }

    /// The layers that are read lazily.
    fn layers(
        &self,
        options: OpenOptions,
        fetch: FetchOptions,
        cache: &Arc<CacheRoot>,
    ) -> Result<Arc<OpenLayers>, SnapshotError> {
        let source = FetchContext::new(Arc::clone(cache), fetch.connections);
        let source = source.with_metrics(Arc::clone(&self.metrics));
        let ztocs = self.layout.ztocs();
        let layers = OpenLayers::new(&ztocs, source, Arc::clone(&self.store), self.client.clone(), options);
        layers.map(Arc::new).map_err(io_error("use", &ztocs))
    }

    /// The trees that are mounted.
    fn trees(&self, options: TreeOptions, layers: &Arc<OpenLayers>) -> Arc<Trees> {
        let namespace = if self.user_xattr { OverlayNamespace::User } else { OverlayNamespace::Trusted };
        Arc::new(Trees::new(
            self.layout.clone(),
            Arc::clone(&self.store),
            Arc::clone(layers),
            FuseOptions { threads: options.fuse_threads, allow_other: true },
            namespace,
            self.runtime.clone(),
            Counting::new(Arc::clone(&self.metrics), options.metrics_wait),
        ))
    }

    /// Recordings of starts, and their replays.
    fn prefetch(
        &self,
        options: PrefetchOptions,
        layers: &Arc<OpenLayers>,
    ) -> Result<Arc<Prefetch>, SnapshotError> {
        let recordings = self.layout.recordings();
        let prefetch = Prefetch::new(&recordings, options, Arc::clone(layers), self.runtime.clone());
        prefetch.map(Arc::new).map_err(io_error("use", &recordings))
    }

    /// What pulls find on this machine.
    fn surroundings(
        &self,
        root: &Path,
        content: ContentOfNamespace,
        trees: &Arc<Trees>,
        prefetch: &Arc<Prefetch>,
    ) -> Surroundings {
        let trees = Arc::clone(trees);
        Surroundings {
            store: local_artifacts(root),
            content,
            user_xattr: self.user_xattr,
            obstacle: Arc::new(move || trees.obstacle()),
            metrics: Arc::clone(&self.metrics),
            prefetch: Arc::clone(prefetch),
        }
    }

    /// The images that are being pulled.
    fn images(
        &self,
        options: PullOptions,
        surroundings: Surroundings,
        layers: &Arc<OpenLayers>,
    ) -> Result<Arc<Images>, SnapshotError> {
        let unpack = self.layout.unpack();
        let scratch = ScratchRoot::open(&unpack).map_err(io_error("use", &unpack))?;
        let client = self.client.clone();
        Ok(Arc::new(Images::new(client, Arc::clone(layers), Arc::new(scratch), options, surroundings)))
    }
}

/// Where `soci create` of this machine keeps what it makes, if it was ever used.
fn local_artifacts(root: &Path) -> Option<soci_index::store::Store> {
    let opened = root.join("content").is_dir().then(|| soci_index::store::Store::open(root))?;
    opened.inspect_err(|error| tracing::warn!(%error, "cannot look into the local artifact store")).ok()
}

/// Options that every overlay gets.
fn overlay_options(user_xattr: bool) -> Vec<String> {
    let mut options = Vec::new();
    // With an index, a lower directory could not be shared by two containers.
    if std::path::Path::new("/sys/module/overlay/parameters/index").exists() {
        options.push("index=off".to_owned());
    }
    if user_xattr {
        options.push("userxattr".to_owned());
    }
    options
}
