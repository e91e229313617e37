//! Somewhere an image can be written to, and what is told meanwhile.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use registry::Descriptor;

use super::archive::ArchiveDestination;
use super::containerd::ContainerdDestination;
use super::layout::{LayoutDestination, Listing};
use super::remote::RegistryDestination;
use super::shipment::{Origin, Part, Shipment};
use super::spec::DestinationSpec;
use crate::containerd::ContainerdError;
use crate::source::SourceError;
use crate::store::StoreError;
use super::error::{DestinationError};

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
