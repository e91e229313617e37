//! Images in containerd's content store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Descriptor, Reference};

use super::error::SourceError;
use super::image_source::{Check, ImageSource};
use crate::containerd::{Containerd, ContainerdBlob, ContainerdError, Image};

/// An image that containerd has, or parts of which it has: other platforms may be missing, and so may layers that a
/// lazy snapshotter never fetched.
#[derive(Debug, Clone)]
pub struct ContainerdSource {
    containerd: Containerd,
    /// As found. A name may get another target while the image is being read.
    image: Image,
}

impl ContainerdSource {
    /// The image `name`, or its full form (`redis` is `docker.io/library/redis:latest`); `None` if containerd does not
    /// have it in this namespace.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn find(containerd: &Containerd, name: &str) -> Result<Option<Self>, ContainerdError> {
        let image = containerd.find_image(name).await?;
        Ok(image.map(|image| Self { containerd: containerd.clone(), image }))
    }

    /// Its name in containerd.
    pub fn image_name(&self) -> &str {
        &self.image.name
    }

    /// A reader, if the blob is there and has the size it should have.
    async fn reader(&self, descriptor: &Descriptor) -> Result<ContainerdBlob, SourceError> {
        let Some(reader) = self.containerd.content_reader(&descriptor.digest).await? else {
            return Err(self.not_pulled(descriptor));
        };
        if reader.size() != descriptor.size {
            return Err(SourceError::Corrupt {
                name: self.containerd.endpoint().to_string(),
                expected: descriptor.digest.clone(),
                problem: format!("should have {} bytes and has {}", descriptor.size, reader.size()),
            });
        }
        Ok(reader)
    }

    fn not_pulled(&self, descriptor: &Descriptor) -> SourceError {
        SourceError::NotPulled {
            digest: descriptor.digest.clone(),
            name: self.containerd.endpoint().to_string(),
            image: crate::text::excerpt(&self.image.name),
        }
    }
}

#[async_trait]
impl ImageSource for ContainerdSource {
    /// The name if it is a full reference, so that records of the image are the same wherever it was read.
    fn name(&self) -> String {
        let name = &self.image.name;
        match name.parse::<Reference>() {
            Ok(reference) if reference.to_string() == *name => name.clone(),
            _ => format!("containerd:{name}"),
        }
    }

    async fn root(&self) -> Result<Descriptor, SourceError> {
        Ok(self.image.target.clone())
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        SourceError::check_manifest_size(descriptor)?;
        self.small_blob(descriptor, descriptor.size).await
    }

    async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError> {
        SourceError::check_size(descriptor, "blob", limit)?;
        self.reader(descriptor).await?;
        let bytes = self.containerd.content_bytes(&descriptor.digest, descriptor.size).await?;
        bytes.ok_or_else(|| self.not_pulled(descriptor))
    }

    async fn lacks(&self, descriptor: &Descriptor) -> Result<bool, SourceError> {
        Ok(self.containerd.content_info(&descriptor.digest).await?.is_none())
    }

    async fn open_blob(&self, descriptor: &Descriptor, check: Check) -> Result<ByteStream, SourceError> {
        self.reader(descriptor).await?;
        Ok(match check {
            Check::BySource => self.containerd.content_stream(&descriptor.digest, descriptor.size).await?,
            Check::ByCaller => self.containerd.read_content(&descriptor.digest, 0..descriptor.size).await?,
        })
    }

    async fn blob_reader(&self, descriptor: &Descriptor) -> Result<Arc<dyn BlobReader>, SourceError> {
        Ok(Arc::new(self.reader(descriptor).await?))
    }
}
