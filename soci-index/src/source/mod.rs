//! Where images come from: a registry, an OCI layout directory, an OCI archive, containerd.
//!
//! [`SourceSpec`] is the text a user writes, in skopeo's form; [`ImageSource`] is what the rest of the crate reads
//! through. Whatever a source hands out has been checked against the descriptor it was asked for, so a hostile registry
//! or layout can make a read fail but not give wrong bytes.

mod archive;
mod containerd;
mod file;
mod layout;
mod local_first;
mod remote;
mod spec;
mod standalone;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Descriptor, Digest, Repository};

pub(crate) use archive::Extent;
pub use containerd::ContainerdSource;
pub(crate) use file::FileSlice;
pub use layout::LayoutSource;
pub(crate) use layout::{CONTAINERD_NAME, REF_NAME};
pub use local_first::LocalFirst;
pub use remote::RegistrySource;
pub(crate) use spec::OTHER_TRANSPORTS;
pub use spec::{Selector, SourceSpec};
pub use standalone::StandaloneSource;

use crate::containerd::ContainerdError;
use crate::oci::{DocumentError, ImageConfig, ImageManifest, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE};

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
    /// When it is missing, larger than [`MAX_MANIFEST_SIZE`], or not what the descriptor says.
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

/// Why an image, or a part of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text does not name a source.
    #[error("invalid image source {given:?}: {reason}")]
    Spec {
        /// The text.
        given: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The registry, or reading a file through its reader, failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The layout or archive is not what it should be.
    #[error("{}: {reason}", path.display())]
    Layout {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A blob or manifest is not there.
    #[error("{digest} is not in {name}")]
    Missing {
        /// What was asked for.
        digest: Digest,
        /// The source.
        name: String,
    },
    /// containerd knows the image, and does not have this part of it: another platform's, or a layer that was pulled
    /// lazily or discarded after it was unpacked.
    #[error(
        "{digest} is not in {name}, which has the image without it; read the image from its registry: docker://{image}"
    )]
    NotPulled {
        /// What was asked for.
        digest: Digest,
        /// containerd, and its namespace.
        name: String,
        /// The image.
        image: String,
    },
    /// containerd failed.
    #[error(transparent)]
    Containerd(Box<ContainerdError>),
    /// Bytes that do not match their descriptor.
    #[error("{name} is corrupt: {expected} {problem}")]
    Corrupt {
        /// The source.
        name: String,
        /// The digest expected.
        expected: Digest,
        /// What was found instead.
        problem: String,
    },
    /// A manifest, index or configuration could not be parsed, or is too large.
    #[error("{digest}: {source}")]
    Document {
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// The image has no manifest for a platform that was asked for.
    #[error("no image for platform {wanted}; the image has: {available}")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// The platforms of the image, divided by commas.
        available: String,
    },
}

impl From<ContainerdError> for SourceError {
    fn from(error: ContainerdError) -> Self {
        Self::Containerd(Box::new(error))
    }
}

impl SourceError {
    /// Whether the source has the image without the part that was asked for.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::NotPulled { .. } => true,
            Self::Registry(error) => error.is_not_found(),
            _ => false,
        }
    }

    /// Whether the source was read and has other content than it should have.
    pub(crate) fn is_corrupt(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Document { .. } => true,
            Self::Registry(error) => matches!(error, registry::Error::DigestMismatch { .. }),
            _ => false,
        }
    }

    pub(crate) fn document(descriptor: &Descriptor, source: DocumentError) -> Self {
        Self::Document { digest: descriptor.digest.clone(), source }
    }

    /// Refuses what is larger than `limit` before anything is read or allocated.
    pub(crate) fn check_size(descriptor: &Descriptor, what: &'static str, limit: u64) -> Result<(), Self> {
        let size = descriptor.size;
        if size > limit {
            return Err(Self::document(descriptor, DocumentError::TooLarge { what, size, limit }));
        }
        Ok(())
    }

    pub(crate) fn check_manifest_size(descriptor: &Descriptor) -> Result<(), Self> {
        Self::check_size(descriptor, "manifest", MAX_MANIFEST_SIZE)
    }
}
