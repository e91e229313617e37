//! Why an image cannot be written.

use std::path::PathBuf;

use crate::containerd::ContainerdError;
use crate::source::SourceError;
use crate::store::StoreError;

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// The text does not name a destination.
    #[error("invalid image destination {given:?}: {reason}")]
    Spec {
        /// The text.
        given: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The registry refused or could not be reached.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A part of the image could not be read.
    #[error(transparent)]
    Source(Box<SourceError>),
    /// The artifact store does not have what it should have.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// containerd failed.
    #[error(transparent)]
    Containerd(Box<ContainerdError>),
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is something else where the image is to go.
    #[error("{}: {reason}", path.display())]
    Layout {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl From<SourceError> for DestinationError {
    fn from(error: SourceError) -> Self {
        Self::Source(Box::new(error))
    }
}

impl From<StoreError> for DestinationError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<ContainerdError> for DestinationError {
    fn from(error: ContainerdError) -> Self {
        Self::Containerd(Box::new(error))
    }
}

impl DestinationError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
