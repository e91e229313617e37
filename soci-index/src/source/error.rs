//! Why something cannot be read from an image.

use std::path::PathBuf;

use registry::{Descriptor, Digest};

use crate::containerd::ContainerdError;
use crate::oci::{DocumentError, MAX_MANIFEST_SIZE};

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
