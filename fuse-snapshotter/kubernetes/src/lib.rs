//! Logins from image pull secrets, read from the Kubernetes API with a kubeconfig.
//!
//! All secrets of type `kubernetes.io/dockerconfigjson` and of the older `kubernetes.io/dockercfg`, in all namespaces,
//! are listed and then watched; the account needs `get`, `list` and `watch` of secrets in the whole cluster. The
//! daemon does not know for which pod it pulls, so of several logins that fit it takes the one with the most specific
//! key, as kubelet does, and among equals the first by namespace and name.
//!
//! Answers come from memory. While the API server cannot be reached, what was read last is used.

mod kubeconfig;
mod logins;
mod pattern;
mod settings;
mod shared;
mod watch;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use registry::{Credential, CredentialProvider};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use settings::KubeconfigSettings;

use shared::Shared;

/// What a pull that comes right after the daemon's start waits, once, for the first list: with it, that pull is lazy
/// too. It does not wait for an API server that is known not to answer.
const FIRST_LIST: Duration = Duration::from_secs(5);

/// Logins from the cluster's secrets. Dropping it ends the watch.
pub struct KubernetesKeychain {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    started: Instant,
}

impl KubernetesKeychain {
    /// Begins to watch, in a task of the current tokio runtime, and returns at once. Whatever is wrong with the
    /// kubeconfig or the API server is logged, and tried again.
    pub fn start(settings: KubeconfigSettings) -> Self {
        let shared = Arc::new(Shared {
            logins: Mutex::default(),
            settled: tokio::sync::watch::Sender::new([false; 2]),
        });
        let task = tokio::spawn(watch::run(settings, Arc::clone(&shared)));
        Self { shared, task, started: Instant::now() }
    }
}

impl Drop for KubernetesKeychain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for KubernetesKeychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesKeychain").finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for KubernetesKeychain {
    async fn credential(&self, host: &str, repository: &str) -> registry::Result<Option<Credential>> {
        let mut settled = self.shared.settled.subscribe();
        let first_list = settled.wait_for(|settled| settled.iter().all(|done| *done));
        // Without it, the answer is what there is.
        let _ = tokio::time::timeout_at(self.started + FIRST_LIST, first_list).await;
        Ok(self.shared.logins().get(host, repository))
    }

    fn revision(&self, _host: &str, _repository: &str) -> u64 {
        self.shared.logins().revision()
    }
}
