//! An image whose manifests have been read already.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Descriptor, Repository};

use super::documents::Documents;
use crate::source::{Check, ImageSource, SourceError};

/// A source that does not ask for manifests again. A tag that moves meanwhile makes no difference either.
pub(super) struct ReadSource {
    pub(super) inner: Arc<dyn ImageSource>,
    pub(super) documents: Arc<Documents>,
}

#[async_trait]
impl ImageSource for ReadSource {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn repository(&self) -> Option<&Repository> {
        self.inner.repository()
    }

    fn always_checks(&self) -> bool {
        self.inner.always_checks()
    }

    async fn root(&self) -> Result<Descriptor, SourceError> {
        Ok(self.documents.root.clone())
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        match self.documents.get(&descriptor.digest) {
            Some(document) => Ok(document.bytes.clone()),
            None => self.inner.manifest(descriptor).await,
        }
    }

    async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError> {
        self.inner.small_blob(descriptor, limit).await
    }

    async fn open_blob(&self, descriptor: &Descriptor, check: Check) -> Result<ByteStream, SourceError> {
        self.inner.open_blob(descriptor, check).await
    }

    async fn blob_reader(&self, descriptor: &Descriptor) -> Result<Arc<dyn BlobReader>, SourceError> {
        self.inner.blob_reader(descriptor).await
    }
}
