//! Where images go: a registry, an OCI layout directory, an OCI archive, containerd.
//!
//! What is to be written is a [`Shipment`]; each destination takes it in the order that keeps it consistent. Blobs go
//! first, then the documents that name them, and the name of the image comes last: until then nobody sees anything new,
//! and what an interrupted run leaves is used by the next one or collected.

mod archive;
mod containerd;
mod layout;
mod remote;
mod shipment;
mod spec;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use registry::Descriptor;

pub use archive::ArchiveDestination;
pub use containerd::ContainerdDestination;
pub use layout::{LayoutDestination, Listing};
pub use remote::RegistryDestination;
pub use shipment::{Origin, Part, Shipment};
pub use spec::DestinationSpec;

use crate::containerd::ContainerdError;
use crate::source::SourceError;
use crate::store::StoreError;

/// Blobs that are moved at the same time unless the user says otherwise.
pub const DEFAULT_CONCURRENT_COPIES: usize = 3;

/// A place that an image can be written to.
#[async_trait]
pub trait ImageDestination: Send + Sync {
    /// How the image will be called there, in the form in which [`crate::source::SourceSpec`] is shown.
    fn name(&self) -> String;

    /// Whether an image may be there without the platforms that nobody asked for.
    fn may_be_partial(&self) -> bool {
        false
    }

    /// Writes an image. The descriptor of its root is that of the last document.
    ///
    /// # Errors
    /// When something cannot be read or written. The name then stands for what it stood for before.
    async fn write(
        &self,
        shipment: &Shipment,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError>;
}

/// Receives the events of a copy. Called from several tasks at once; must not block.
pub trait CopyProgress: Send + Sync {
    /// Something happened to a blob.
    fn blob(&self, blob: &Descriptor, event: CopyEvent);
}

/// What happened to a blob. Every blob ends with `Done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyEvent {
    /// Its bytes begin to move.
    Started,
    /// This many more bytes have moved.
    Advanced(u64),
    /// It is at its destination.
    Done(Copied),
}

/// How a blob got to its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copied {
    /// It was there before.
    There,
    /// The registry took it over from another repository of its own.
    Mounted,
    /// Its bytes were moved.
    Moved,
}

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
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
