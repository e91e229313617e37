//! Logins from the secrets of a Kubernetes cluster, in a program that is built with them.
//!
//! They are a crate of their own, `kubernetes-logins`, because Kubernetes' client brings many others along. The feature
//! `kubernetes` of this crate adds it.

use std::path::PathBuf;
use std::sync::Arc;

use registry::CredentialProvider;

/// Whether this program is built with them.
pub(crate) const BUILT_IN: bool = cfg!(feature = "kubernetes");

/// The kubeconfig to reach the cluster with.
#[derive(Debug, Clone, Default)]
pub struct Kubeconfig {
    /// `None`: the files that `KUBECONFIG` names, or `~/.kube/config`. It may be missing, and may come later.
    pub path: Option<PathBuf>,
}

/// This program has no client of Kubernetes.
#[derive(Debug, thiserror::Error)]
#[error(
    "this program is built without Kubernetes' logins: use the program of a release, build it with `make build` or \
     `cargo build --release -p fuse-snapshotter --features kubernetes`, or set this key to false"
)]
pub struct WithoutKubernetes;

/// Begins to watch the cluster.
#[cfg(feature = "kubernetes")]
pub(super) fn start(kubeconfig: Kubeconfig) -> Result<Arc<dyn CredentialProvider>, WithoutKubernetes> {
    use kubernetes_logins::{KubeconfigSettings, KubernetesKeychain};

    let settings = KubeconfigSettings { path: kubeconfig.path, ..KubeconfigSettings::default() };
    Ok(Arc::new(KubernetesKeychain::start(settings)))
}

/// Refuses.
#[cfg(not(feature = "kubernetes"))]
pub(super) fn start(_: Kubeconfig) -> Result<Arc<dyn CredentialProvider>, WithoutKubernetes> {
    Err(WithoutKubernetes)
}
