//! Somewhere an image can be read from.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Descriptor, Repository};

use super::error::SourceError;
use crate::oci::{ImageConfig, ImageManifest, MAX_CONFIG_SIZE};

/// Who compares a blob's bytes with its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The source: the stream ends with an error unless size and digest are right.
    BySource,
    /// The caller, who hashes the bytes anyway. A source for which checking costs nothing extra may still check.
    ByCaller,
}

/// An image that can be read.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// How the image is recorded and shown: a normalised reference, or `oci:` and an absolute path.
    fn name(&self) -> String;

    /// The descriptor that the source's reference stands for: an image manifest or an image index.
    ///
    /// # Errors
    /// When there is no such image, or the reference is ambiguous.
    async fn root(&self) -> Result<Descriptor, SourceError>;

    /// A manifest or image index, checked against `descriptor`.
    ///
    /// # Errors
    /// When it is missing, larger than [`crate::oci::MAX_MANIFEST_SIZE`], or not what the descriptor says.
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError>;

    /// A small blob in memory, at most `limit` bytes, checked against `descriptor`.
    ///
    /// # Errors
    /// When it is missing, larger than `limit`, or not what the descriptor says.
    async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError>;

    /// A blob from its first byte to its last.
    ///
    /// # Errors
    /// When it is missing or has the wrong size. Wrong bytes show as an error at the end of the stream.
    async fn open_blob(&self, descriptor: &Descriptor, check: Check) -> Result<ByteStream, SourceError>;

    /// Whether it is known, without asking anybody over a network, that the source has an image without this blob of it.
    ///
    /// # Errors
    /// When that cannot be found out.
    async fn lacks(&self, _descriptor: &Descriptor) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Whether [`Self::open_blob`] checks even where the caller offers to.
    fn always_checks(&self) -> bool {
        false
    }

    /// The repository that the image is in, if it is in a registry: another repository there can have its blobs without
    /// moving them.
    fn repository(&self) -> Option<&Repository> {
        None
    }

    /// A blob for ranged reads, whose bytes are not checked here: spans have digests of their own.
    ///
    /// # Errors
    /// When it is missing or has the wrong size.
    async fn blob_reader(&self, descriptor: &Descriptor) -> Result<Arc<dyn BlobReader>, SourceError>;
}

impl dyn ImageSource + '_ {
    /// Reads and parses an image manifest.
    ///
    /// # Errors
    /// Those of [`ImageSource::manifest`], and a document that is not an image manifest.
    pub async fn image_manifest(&self, descriptor: &Descriptor) -> Result<ImageManifest, SourceError> {
        let json = self.manifest(descriptor).await?;
        ImageManifest::parse(&json).map_err(|source| SourceError::document(descriptor, source))
    }

    /// Reads and parses an image configuration.
    ///
    /// # Errors
    /// Those of [`ImageSource::small_blob`], and a document that is not an image configuration.
    pub async fn image_config(&self, descriptor: &Descriptor) -> Result<ImageConfig, SourceError> {
        let json = self.small_blob(descriptor, MAX_CONFIG_SIZE).await?;
        ImageConfig::parse(&json).map_err(|source| SourceError::document(descriptor, source))
    }
}
