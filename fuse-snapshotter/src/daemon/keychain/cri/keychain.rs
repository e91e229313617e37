//! The logins that went through the proxy, as the registry client asks for them.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use registry::{Credential, CredentialProvider};

use super::backend::Backend;
use super::store::Store;

/// The proxy in front of containerd's image service, and the logins that went through it. Clones share them.
#[derive(Clone)]
pub struct CriKeychain(Arc<Inner>);

struct Inner {
    backend: Backend,
    store: Mutex<Store>,
}

impl CriKeychain {
    /// In front of the image service that listens on the unix socket `image_service_path` (with or without `unix://`).
    /// Nothing is connected yet: that happens with the first call, and anew after the other side was restarted.
    ///
    /// It must not be the socket on which [`Self::service`] is served: calls would go in circles.
    pub fn new(image_service_path: impl AsRef<Path>) -> Self {
        let backend = Backend::new(image_service_path.as_ref());
        Self(Arc::new(Inner { backend, store: Mutex::default() }))
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CriKeychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CriKeychain").field("backend", &self.0.backend.path()).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for CriKeychain {
    async fn credential(&self, host: &str, repository: &str) -> registry::Result<Option<Credential>> {
        Ok(self.store().get(host, repository))
    }

    fn revision(&self, _host: &str, _repository: &str) -> u64 {
        self.store().revision()
    }
}
