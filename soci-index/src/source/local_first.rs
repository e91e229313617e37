//! An image of containerd whose missing parts are in its registry: lazy snapshotters never fetch its layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Descriptor};

use super::containerd::ContainerdSource;
use super::error::SourceError;
use super::image_source::{Check, ImageSource};
use super::remote::RegistrySource;

/// Reads what containerd has there, and the rest from the registry.
#[derive(Debug)]
pub struct LocalFirst {
    local: ContainerdSource,
    registry: RegistrySource,
    asked_registry: AtomicBool,
}

impl LocalFirst {
    /// The same image in both places. What the registry's tag stands for by now does not matter: everything is read by its
    /// digest.
    pub fn new(local: ContainerdSource, registry: RegistrySource) -> Self {
        Self { local, registry, asked_registry: AtomicBool::new(false) }
    }

    /// Whether something was not in containerd.
    pub fn asked_registry(&self) -> bool {
        self.asked_registry.load(Relaxed)
    }

    /// What `local` gives, or `remote` where containerd does not have it.
    async fn either<T>(
        &self,
        local: impl Future<Output = Result<T, SourceError>> + Send,
        remote: impl Future<Output = Result<T, SourceError>> + Send,
    ) -> Result<T, SourceError> {
        match local.await {
            Err(SourceError::NotPulled { .. }) => {
                self.asked_registry.store(true, Relaxed);
                remote.await
            }
            done => done,
        }
    }
}

#[async_trait]
impl ImageSource for LocalFirst {
    fn name(&self) -> String {
        self.local.name()
    }

    async fn root(&self) -> Result<Descriptor, SourceError> {
        self.local.root().await
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        self.either(self.local.manifest(descriptor), self.registry.manifest(descriptor)).await
    }

    async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError> {
        let (local, registry) = (&self.local, &self.registry);
        self.either(local.small_blob(descriptor, limit), registry.small_blob(descriptor, limit)).await
    }

    async fn open_blob(&self, descriptor: &Descriptor, check: Check) -> Result<ByteStream, SourceError> {
        let (local, registry) = (&self.local, &self.registry);
        self.either(local.open_blob(descriptor, check), registry.open_blob(descriptor, check)).await
    }

    async fn blob_reader(&self, descriptor: &Descriptor) -> Result<Arc<dyn BlobReader>, SourceError> {
        self.either(self.local.blob_reader(descriptor), self.registry.blob_reader(descriptor)).await
    }
}
