//! What the daemon sees of the configuration: no raw numbers, no empty texts with a meaning.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::configuration::Config;
use super::values::{full_name, limit, seconds, socket};
use crate::foresight::recorded::PrefetchOptions;
use crate::snapshotter::pull::ChosenIndexes;

/// Most threads for the kernel's requests unless more are asked for: they never wait, so more would not help.
const MAX_FUSE_THREADS: usize = 8;

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsEndpoint {
    /// `host:port`; without a host, on all addresses.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Where artifacts and layers are kept, and looked for before a registry is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentStore {
    /// The artifact store in the root directory.
    Soci,
    /// containerd's content store.
    Containerd {
        /// Its socket.
        address: PathBuf,
    },
}

/// Which indexes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullModes {
    /// Version 1: found by asking for what refers to the image.
    pub soci_v1: bool,
    /// Version 2: named by an annotation of the image.
    pub soci_v2: bool,
}

/// How layers are fetched and unpacked that are not read lazily. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParallelPull {
    /// Do so with all images, and read none lazily.
    pub always: bool,
    /// Do so with images that have no index, instead of leaving them to containerd.
    pub as_fallback: bool,
    /// Layers fetched at the same time.
    pub downloads: Option<usize>,
    /// The same for each image.
    pub downloads_per_image: Option<usize>,
    /// Layers unpacked at the same time.
    pub unpacks: Option<usize>,
    /// The same for each image.
    pub unpacks_per_image: Option<usize>,
}

impl Config {
    /// Whether to log at level debug unless something else is asked for.
    #[must_use]
    pub fn debug(&self) -> bool {
        self.file.debug
    }

    /// Whether every request of the kernel is logged.
    #[must_use]
    pub fn log_fuse_operations(&self) -> bool {
        self.file.fuse.log_fuse_operations
    }

    /// Threads that answer the kernel; at least 1.
    #[must_use]
    pub fn fuse_threads(&self) -> usize {
        match limit(self.file.fuse.threads) {
            None | Some(0) => {
                std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_FUSE_THREADS)
            }
            Some(threads) => threads,
        }
    }

    /// Longest wait for a layer to become readable lazily.
    #[must_use]
    pub fn mount_timeout(&self) -> Duration {
        seconds(self.file.mount_timeout_sec)
    }

    /// Layers that are prepared for lazy reading at the same time; `None` is no limit.
    #[must_use]
    pub fn layers_ahead(&self) -> Option<usize> {
        limit(self.file.max_concurrency)
    }

    /// Smallest layer that is read lazily, compressed, in bytes.
    #[must_use]
    pub fn min_layer_size(&self) -> u64 {
        u64::try_from(self.file.snapshotter.min_layer_size).unwrap_or(0)
    }

    /// Largest zTOC of a layer that is read lazily, in percent of the compressed layer; `None` for no limit.
    #[must_use]
    pub fn max_ztoc_percent(&self) -> Option<u64> {
        u64::try_from(self.file.snapshotter.max_ztoc_percent).ok().filter(|percent| *percent > 0)
    }

    /// Whether to check at start-up that the root directory can hold overlay mounts.
    #[must_use]
    pub fn check_supported(&self) -> bool {
        !self.file.skip_check_snapshotter_supported
    }

    /// Where metrics are served; `None` for not at all.
    #[must_use]
    pub fn metrics(&self) -> Option<MetricsEndpoint> {
        let address = &self.file.metrics_address;
        if address.is_empty() || self.file.no_prometheus {
            return None;
        }
        Some(match self.file.metrics_network.as_str() {
            "unix" => MetricsEndpoint::Unix(socket(address)),
            _ => MetricsEndpoint::Tcp(address.clone()),
        })
    }

    /// Time from the first mount of an image until its FUSE operations are logged.
    #[must_use]
    pub fn fuse_metrics_wait(&self) -> Duration {
        seconds(self.file.fuse_metrics_emit_wait_duration_sec)
    }

    /// Largest size of the cached contents of all layers, in bytes.
    #[must_use]
    pub fn cache_size(&self) -> u64 {
        self.file.cache.max_size.0
    }

    /// Whether a layer's cache stays when no snapshot uses the layer any more.
    #[must_use]
    pub fn keep_cache(&self) -> bool {
        self.file.snapshotter.keep_cache
    }

    /// Whether the rest of an image is fetched while nobody reads.
    #[must_use]
    pub fn background_fetch(&self) -> bool {
        !self.file.background_fetch.disable
    }

    /// How starts are recorded and replayed.
    #[must_use]
    pub fn prefetch(&self) -> PrefetchOptions {
        let prefetch = &self.file.prefetch;
        let usual = PrefetchOptions::default();
        PrefetchOptions {
            replay: prefetch.enable,
            record: prefetch.record,
            forecast: prefetch.forecast,
            requests: limit(prefetch.max_concurrency)
                .filter(|requests| *requests > 0)
                .unwrap_or(usual.requests),
            quiet: seconds(prefetch.record_quiet_sec),
            longest: seconds(prefetch.record_max_sec),
        }
    }

    /// Where artifacts and layers are kept.
    #[must_use]
    pub fn content_store(&self) -> ContentStore {
        let store = &self.file.content_store;
        match store.kind.as_str() {
            "containerd" => ContentStore::Containerd { address: socket(&store.containerd_address) },
            _ => ContentStore::Soci,
        }
    }

    /// containerd's socket. Its content store is looked into first, wherever else artifacts are kept.
    #[must_use]
    pub fn containerd_address(&self) -> PathBuf {
        socket(&self.file.content_store.containerd_address)
    }

    /// Which indexes are used.
    #[must_use]
    pub fn pull_modes(&self) -> PullModes {
        let modes = &self.file.pull_modes;
        PullModes { soci_v1: modes.soci_v1.enable, soci_v2: modes.soci_v2.enable }
    }

    /// Indexes that are used where the client names none. Those that [`problems`](Self::problems) finds to be none are left out.
    #[must_use]
    pub fn chosen_indexes(&self) -> ChosenIndexes {
        let chosen = self.file.pull_modes.index.iter();
        chosen.filter_map(|(image, index)| Some((full_name(image)?, index.digest.parse().ok()?))).collect()
    }

    /// How layers are fetched that are not read lazily.
    #[must_use]
    pub fn parallel_pull(&self) -> ParallelPull {
        let parallel = &self.file.pull_modes.parallel_pull_unpack;
        ParallelPull {
            always: parallel.enable,
            as_fallback: parallel.experimental_parallel_pull_as_fallback,
            downloads: limit(parallel.max_concurrent_downloads),
            downloads_per_image: limit(parallel.max_concurrent_downloads_per_image),
            unpacks: limit(parallel.max_concurrent_unpacks),
            unpacks_per_image: limit(parallel.max_concurrent_unpacks_per_image),
        }
    }

    /// Whether credentials come from the secrets of a Kubernetes cluster.
    #[must_use]
    pub fn kubeconfig_keychain(&self) -> bool {
        self.file.kubeconfig_keychain.enable_keychain
    }

    /// The kubeconfig to reach the cluster with; `None` for the usual places.
    #[must_use]
    pub fn kubeconfig_path(&self) -> Option<&Path> {
        let path = &self.file.kubeconfig_keychain.kubeconfig_path;
        (!path.is_empty()).then(|| Path::new(path))
    }

    /// The socket of the real image service, if credentials are taken from requests to it.
    #[must_use]
    pub fn cri_keychain(&self) -> Option<PathBuf> {
        let keychain = &self.file.cri_keychain;
        keychain.enable_keychain.then(|| socket(&keychain.image_service_path))
    }
}
