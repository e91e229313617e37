//! Opening a snapshotter: what it is made of, put together.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::counting::Counting;
use super::error::{SnapshotError, io_error};
use super::idmap::mapper::IdMapper;
use super::keyed_lock::KeyedLock;
use super::layout::Layout;
use super::options::Options;
use super::pull::{ImageOptions, Images, ScratchRoot};
use super::root::{check_overlay, check_owner, in_user_namespace};
use super::service::Snapshotter;
use super::store::SnapshotStore;
use super::trees::Trees;
use super::{number_spaces, restart, seek};
use crate::content::FetchContext;
use crate::content::cache::CacheRoot;
use crate::content::tree::OverlayNamespace;
use crate::foresight::recorded::Prefetch;
use crate::fronts::fuse::FuseOptions;
use crate::image::OpenLayers;

impl Snapshotter {
    /// Opens the snapshotter of a root directory, and detaches what a process before this one left mounted there.
    ///
    /// # Errors
    /// If the root cannot be used, or another process uses it.
    pub fn open(options: Options, runtime: Handle) -> Result<Arc<Self>, SnapshotError> {
        check_owner(&options.root)?;
        let layout = Layout::create(&options.root).map_err(io_error("create", &options.root))?;
        // The store first: it is locked, and what follows must not be done twice at a time.
        let store = Arc::new(SnapshotStore::open(&layout.store())?);
        let dead = restart::detach_all(&layout);
        let user_xattr = in_user_namespace();
        if options.check_overlay {
            check_overlay(&layout, user_xattr)?;
        }
        number_spaces::begin(&store)?;
        let cache = CacheRoot::open(&layout.cache(), options.cache_size)
            .map_err(|error| SnapshotError::Unavailable(error.to_string()))?;
        let cache = Arc::new(cache);
        let metrics = options.metrics;
        let source =
            FetchContext::new(Arc::clone(&cache), options.connections).with_metrics(Arc::clone(&metrics));
        let clients = vec![options.client.clone()];
        let client = options.client.clone();
        let ztocs = layout.ztocs();
        let layers = OpenLayers::new(&ztocs, source, Arc::clone(&store), client, options.layers);
        let layers = Arc::new(layers.map_err(io_error("use", &ztocs))?);
        let namespace = if user_xattr { OverlayNamespace::User } else { OverlayNamespace::Trusted };
        let fuse = FuseOptions { threads: options.fuse_threads, allow_other: true };
        let trees = Arc::new(Trees::new(
            layout.clone(),
            Arc::clone(&store),
            Arc::clone(&layers),
            fuse,
            namespace,
            runtime,
            Counting::new(Arc::clone(&metrics), options.fuse_metrics_wait),
        ));
        let recordings = layout.recordings();
        let prefetch =
            Prefetch::new(&recordings, options.prefetch, Arc::clone(&layers), trees.runtime.clone())
                .map_err(io_error("use", &recordings))?;
        let prefetch = Arc::new(prefetch);
        let unpack = layout.unpack();
        let scratch = ScratchRoot::open(&unpack).map_err(io_error("use", &unpack))?;
        let obstacle = {
            let trees = Arc::clone(&trees);
            Arc::new(move || trees.obstacle())
        };
        // Where `soci create` of this machine keeps what it makes, if it was ever used.
        let artifacts = options.root.join("content").is_dir();
        let artifacts = artifacts.then(|| soci_index::store::Store::open(&options.root));
        let artifacts = artifacts.and_then(|opened| {
            opened
                .inspect_err(|error| tracing::warn!(%error, "cannot look into the local artifact store"))
                .ok()
        });
        let content = Arc::clone(&options.content);
        let images = Images::new(
            options.client,
            Arc::clone(&layers),
            Arc::new(scratch),
            ImageOptions {
                mount_timeout: options.mount_timeout,
                min_layer_size: options.min_layer_size,
                max_ztoc_percent: options.max_ztoc_percent,
                v1: options.v1,
                v2: options.v2,
                chosen_indexes: options.chosen_indexes,
                always_unpack: options.always_unpack,
                unpack_without_index: options.unpack_without_index,
                parallel_unpacks: options.parallel_unpacks.max(1),
                all_parallel_unpacks: options.all_parallel_unpacks.max(1),
                parallel_layers: options.parallel_layers.max(1),
                store: artifacts,
                artifacts_in: options.artifacts_in,
                content: options.content,
                user_xattr,
                obstacle,
                metrics,
                prefetch: Arc::clone(&prefetch),
            },
        );
        let snapshotter = Arc::new(Self {
            layout,
            store,
            layers,
            cache,
            images: Arc::new(images),
            trees,
            prefetch,
            overlay_options: overlay_options(user_xattr),
            id_mapper: IdMapper::new(options.id_mapping, options.user_namespace_program),
            removed: Notify::new(),
            left: AtomicBool::new(false),
            turns: KeyedLock::default(),
            noting: tokio::sync::Mutex::default(),
            cleaning: tokio::sync::Mutex::default(),
        });
        snapshotter.layers.seek_with(Arc::new(seek::ImagesOfContainerd {
            snapshotter: Arc::downgrade(&snapshotter),
            content,
        }));
        snapshotter.register_metrics(clients);
        tracing::debug!(dead, "detached mounts of an earlier process");
        Ok(snapshotter)
    }
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
