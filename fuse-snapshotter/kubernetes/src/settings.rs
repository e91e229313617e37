//! Where the kubeconfig is.

use std::path::PathBuf;
use std::time::Duration;

/// Where the kubeconfig is.
#[derive(Debug, Clone)]
pub struct KubeconfigSettings {
    /// `None`: the files that `KUBECONFIG` names, or `~/.kube/config`. It may be missing, and may come later.
    pub path: Option<PathBuf>,
    /// How often it is looked at for changes; 10 s.
    pub poll: Duration,
}

impl Default for KubeconfigSettings {
    fn default() -> Self {
        Self { path: None, poll: Duration::from_secs(10) }
    }
}
