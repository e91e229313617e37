//! What the daemon sees of the configuration: no raw numbers, no empty texts with a meaning.

use std::path::{Path, PathBuf};

use super::configuration::Config;
use super::table::Table;
use super::values::{full_name, socket};
use crate::snapshotter::Settings;
use crate::snapshotter::pull::UNLIMITED;

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

impl Config {
    /// What the snapshotter is to do. Most keys say in their declaration where their values go; here is the rest.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        // Two keys each lower these.
        settings.pull.parallel_unpacks = UNLIMITED;
        settings.pull.all_parallel_unpacks = UNLIMITED;
        self.file.apply(&mut settings);
        let pull = &mut settings.pull;
        pull.unpack_without_index |= pull.always_unpack;
        // Those that `problems` finds to be none are left out.
        let chosen = self.file.pull_modes.index.iter();
        pull.chosen_indexes = chosen
            .filter_map(|(image, index)| Some((full_name(image)?, index.digest.parse().ok()?)))
            .collect();
        pull.artifacts_in = match self.content_store() {
            ContentStore::Soci => None,
            ContentStore::Containerd { address } => Some(address),
        };
        settings
    }

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
