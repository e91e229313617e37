//! Images in a registry.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Client, Descriptor, Digest, Manifest, Reference, Repository};
use tokio::sync::OnceCell;

use super::error::SourceError;
use super::image_source::{Check, ImageSource};
use crate::oci::MAX_CONFIG_SIZE;

/// What is remembered: a manifest and a small blob.
const MANIFEST: usize = 0;
const SMALL_BLOB: usize = 1;

/// An image in a registry.
#[derive(Debug)]
pub struct RegistrySource {
    client: Client,
    reference: Reference,
    /// The manifest that the reference stands for. Asked for once: a tag may move while an image is being read.
    root: OnceCell<Manifest>,
    /// The manifest by digest, and the configuration, that were asked for last: whoever reads an image asks for these
    /// again and again.
    recent: Mutex<[Option<(Digest, Bytes)>; 2]>,
}

impl RegistrySource {
    /// The image `reference`. Nothing is asked for yet.
    pub fn new(client: Client, reference: Reference) -> Self {
        Self { client, reference, root: OnceCell::new(), recent: Mutex::default() }
    }

    /// The reference.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn root_manifest(&self) -> Result<&Manifest, SourceError> {
        Ok(self.root.get_or_try_init(|| self.client.manifest(&self.reference)).await?)
    }

    fn recent(&self, kind: usize, digest: &Digest) -> Option<Bytes> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent[kind].as_ref().filter(|(known, _)| known == digest).map(|(_, bytes)| bytes.clone())
    }

    fn remember(&self, kind: usize, digest: &Digest, bytes: &Bytes) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent[kind] = Some((digest.clone(), bytes.clone()));
    }

    fn check_size(&self, descriptor: &Descriptor, actual: u64) -> Result<(), SourceError> {
        if descriptor.size != actual {
            return Err(SourceError::Corrupt {
                name: self.name(),
                expected: descriptor.digest.clone(),
                problem: format!("should have {} bytes and has {actual}", descriptor.size),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl ImageSource for RegistrySource {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn repository(&self) -> Option<&Repository> {
        Some(self.reference.repository())
    }

    async fn root(&self) -> Result<Descriptor, SourceError> {
        Ok(self.root_manifest().await?.descriptor())
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        SourceError::check_manifest_size(descriptor)?;
        if let Some(root) = self.root.get().filter(|root| root.digest == descriptor.digest) {
            self.check_size(descriptor, root.bytes.len() as u64)?;
            return Ok(root.bytes.clone());
        }
        if let Some(bytes) = self.recent(MANIFEST, &descriptor.digest) {
            self.check_size(descriptor, bytes.len() as u64)?;
            return Ok(bytes);
        }
        let manifest = self.client.manifest_in(self.reference.repository(), &descriptor.digest).await?;
        self.check_size(descriptor, manifest.bytes.len() as u64)?;
        self.remember(MANIFEST, &descriptor.digest, &manifest.bytes);
        Ok(manifest.bytes)
    }

    async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError> {
        if let Some(bytes) = self.recent(SMALL_BLOB, &descriptor.digest)
            && bytes.len() as u64 == descriptor.size
            && descriptor.size <= limit
        {
            return Ok(bytes);
        }
        let bytes = self.client.blob_bytes(self.reference.repository(), descriptor, limit).await?;
        if limit <= MAX_CONFIG_SIZE {
            self.remember(SMALL_BLOB, &descriptor.digest, &bytes);
        }
        Ok(bytes)
    }

    fn always_checks(&self) -> bool {
        true
    }

    async fn open_blob(&self, descriptor: &Descriptor, _check: Check) -> Result<ByteStream, SourceError> {
        Ok(self.client.blob_stream(self.reference.repository(), descriptor).await?)
    }

    async fn blob_reader(&self, descriptor: &Descriptor) -> Result<Arc<dyn BlobReader>, SourceError> {
        let reader =
            self.client.blob_reader(self.reference.repository(), descriptor.digest.clone(), descriptor.size);
        Ok(Arc::new(reader))
    }
}
