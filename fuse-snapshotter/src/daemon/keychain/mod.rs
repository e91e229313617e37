//! Registry logins for the daemon, which pulls long after `PullImage` is over and without a person to ask.
//!
//! [`Keychains`] asks, in this order, Docker's and Podman's configuration files, the cluster's image pull secrets
//! ([`kubernetes`]), and what kubelet gave with its pulls ([`cri`]). The first that has something wins. All of them
//! answer with what they have at that moment, and the registry client asks whenever it needs a new token, was refused, or
//! [`CredentialProvider::revision`] has changed. So a login that changes is used without a restart, and one that has gone is
//! used no more.
//!
//! Logins live in memory only and are never logged.

pub mod cri;
pub mod kubernetes;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use registry::{CredentialChain, CredentialProvider, DockerConfig};

pub use cri::CriKeychain;
pub use kubernetes::{Kubeconfig, WithoutKubernetes};

/// Which sources of logins there are.
#[derive(Debug, Clone, Default)]
pub struct KeychainSettings {
    /// Docker's and Podman's configuration; by default those that the environment names.
    pub docker: DockerConfig,
    /// `[kubeconfig_keychain]`, if it is on.
    pub kubeconfig: Option<Kubeconfig>,
    /// `image_service_path` of `[cri_keychain]`, if that is on.
    pub cri: Option<PathBuf>,
}

/// All sources of logins of a daemon.
#[derive(Debug, Clone)]
pub struct Keychains {
    credentials: Arc<CredentialChain>,
    cri: Option<CriKeychain>,
}

impl Keychains {
    /// Sets them up. Must be called within a tokio runtime, on which the cluster is watched until the last clone and the
    /// last of its [`Self::credentials`] are dropped. Nothing is waited for.
    ///
    /// # Errors
    /// If logins of a cluster are asked for, and this program is built without them.
    pub fn start(settings: KeychainSettings) -> Result<Self, WithoutKubernetes> {
        let mut sources: Vec<Arc<dyn CredentialProvider>> = vec![Arc::new(settings.docker)];
        if let Some(kubeconfig) = settings.kubeconfig {
            sources.push(kubernetes::start(kubeconfig)?);
        }
        let cri = settings.cri.map(CriKeychain::new);
        if let Some(cri) = &cri {
            sources.push(Arc::new(cri.clone()));
        }
        Ok(Self { credentials: Arc::new(CredentialChain::new(sources)), cri })
    }

    /// For [`registry::ClientConfig::credentials`].
    pub fn credentials(&self) -> Arc<dyn CredentialProvider> {
        self.credentials.clone()
    }

    /// The image service to serve beside the snapshots service, if it is on.
    pub fn cri(&self) -> Option<&CriKeychain> {
        self.cri.as_ref()
    }
}
