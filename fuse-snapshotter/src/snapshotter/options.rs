//! What a snapshotter is made with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry::Client;

use super::idmap::IdMapping;
use crate::base::metrics::Metrics;
use crate::foresight::recorded::PrefetchOptions;
use crate::image::OpenOptions;
use crate::snapshotter::pull::{ChosenIndexes, ContentOfNamespace};

/// What a snapshotter is made with.
#[derive(Clone)]
pub struct Options {
    /// Root directory.
    pub root: PathBuf,
    /// Try at start-up whether overlayfs works below the root.
    pub check_overlay: bool,
    /// Client of the registries, with their credentials.
    pub client: Client,
    /// Largest size of the cache, in bytes.
    pub cache_size: u64,
    /// Requests for layer contents that may be under way at once.
    pub connections: usize,
    /// How lazy layers are opened.
    pub layers: OpenOptions,
    /// Threads that serve the kernel's requests.
    pub fuse_threads: usize,
    /// How long making a layer ready for lazy reading may take.
    pub mount_timeout: Duration,
    /// Layers smaller than this, in bytes, are not read lazily.
    pub min_layer_size: u64,
    /// Layers whose zTOC is larger than so many percent of them are not read lazily, unless they are small; `None` for no limit.
    pub max_ztoc_percent: Option<u64>,
    /// Use indexes of version 1.
    pub v1: bool,
    /// Use indexes of version 2.
    pub v2: bool,
    /// Indexes that are used where the client names none.
    pub chosen_indexes: ChosenIndexes,
    /// Unpack all layers of images, and read none lazily.
    pub always_unpack: bool,
    /// Unpack the layers of images without an index, too, instead of leaving them to containerd.
    pub unpack_without_index: bool,
    /// Layers of one image that are fetched and unpacked at the same time.
    pub parallel_unpacks: usize,
    /// Layers of all images that are.
    pub all_parallel_unpacks: usize,
    /// Layers of all images that are made ready for lazy reading at the same time.
    pub parallel_layers: usize,
    /// containerd's socket, if artifacts that were made on this machine are in its content store.
    pub artifacts_in: Option<PathBuf>,
    /// Gives the content that containerd has in a namespace.
    pub content: ContentOfNamespace,
    /// A program that enters a new user namespace and then waits for its standard input to end; see `idmap`.
    pub user_namespace_program: (PathBuf, Vec<String>),
    /// Where what happens is counted.
    pub metrics: Arc<Metrics>,
    /// Time from the first mount of an image until its FUSE operations are logged.
    pub fuse_metrics_wait: Duration,
    /// Recording starts and replaying them.
    pub prefetch: PrefetchOptions,
    /// How the layers of containers in user namespaces get their owners.
    pub id_mapping: IdMapping,
}

impl Options {
    /// A snapshotter that reads lazily whatever it can, with a cache without limit, and that finds nothing on this machine.
    #[must_use]
    pub fn new(root: PathBuf, client: Client) -> Self {
        Self {
            root,
            check_overlay: false,
            client,
            cache_size: u64::MAX,
            connections: 8,
            layers: OpenOptions { background: false, keep_cache: false },
            fuse_threads: 2,
            mount_timeout: Duration::from_secs(30),
            min_layer_size: 0,
            max_ztoc_percent: None,
            v1: true,
            v2: true,
            chosen_indexes: ChosenIndexes::default(),
            always_unpack: false,
            unpack_without_index: false,
            parallel_unpacks: 3,
            all_parallel_unpacks: 3,
            parallel_layers: 8,
            artifacts_in: None,
            content: Arc::new(|_| Vec::new()),
            // Fails, and with it the mapping of ids, which then falls back.
            user_namespace_program: (PathBuf::new(), Vec::new()),
            metrics: Metrics::new(),
            fuse_metrics_wait: Duration::from_secs(60),
            prefetch: PrefetchOptions::default(),
            id_mapping: IdMapping::Auto,
        }
    }
}
