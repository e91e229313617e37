//! What a snapshotter is made with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry::Client;

use super::idmap::IdMapping;
use super::pull::{ContentOfNamespace, PullOptions};
use crate::base::metrics::Metrics;
use crate::foresight::recorded::PrefetchOptions;
use crate::image::OpenOptions;

/// What a snapshotter is made with: where it is, whom it works with, and what it is to do.
#[derive(Clone)]
pub struct Options {
    /// Root directory.
    pub root: PathBuf,
    /// Client of the registries, with their credentials.
    pub client: Client,
    /// Gives the content that containerd has in a namespace.
    pub content: ContentOfNamespace,
    /// A program that enters a new user namespace and then waits for its standard input to end; see `idmap`.
    pub user_namespace_program: (PathBuf, Vec<String>),
    /// How the layers of containers in user namespaces get their owners.
    pub id_mapping: IdMapping,
    /// Where what happens is counted.
    pub metrics: Arc<Metrics>,
    /// What the configuration says.
    pub settings: Settings,
}

impl Options {
    /// A snapshotter with the default settings, which finds nothing on this machine.
    #[must_use]
    pub fn new(root: PathBuf, client: Client) -> Self {
        Self {
            root,
            client,
            content: Arc::new(|_| Vec::new()),
            // Fails, and with it the mapping of ids, which then falls back.
            user_namespace_program: (PathBuf::new(), Vec::new()),
            id_mapping: IdMapping::Auto,
            metrics: Metrics::new(),
            settings: Settings::default(),
        }
    }
}

/// What the configuration says, by subject. Each part of the snapshotter gets its own. The default reads lazily whatever
/// it can, with a cache without limit.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Try at start-up whether overlayfs works below the root.
    pub check_overlay: bool,
    /// How images are pulled, and which of their layers are read lazily.
    pub pull: PullOptions,
    /// How contents are fetched and kept.
    pub fetch: FetchOptions,
    /// How lazy layers are opened.
    pub layers: OpenOptions,
    /// How trees are served.
    pub trees: TreeOptions,
    /// Recording starts and replaying them.
    pub prefetch: PrefetchOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            check_overlay: false,
            pull: PullOptions::default(),
            fetch: FetchOptions::default(),
            layers: OpenOptions { background: false, keep_cache: false },
            trees: TreeOptions::default(),
            prefetch: PrefetchOptions::default(),
        }
    }
}

/// How contents are fetched and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// Largest size of the cache, in bytes.
    pub cache_size: u64,
    /// Requests for layer contents that may be under way at once. Latency is what costs, so there are more than a fast
    /// link needs; a registry is not hammered by that many.
    pub connections: usize,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { cache_size: u64::MAX, connections: 8 }
    }
}

/// How trees are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeOptions {
    /// Threads that serve the kernel's requests.
    pub fuse_threads: usize,
    /// Time from the first mount of an image until its FUSE operations are logged.
    pub metrics_wait: Duration,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self { fuse_threads: 2, metrics_wait: Duration::from_secs(60) }
    }
}
