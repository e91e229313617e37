//! Where images go: a registry, an OCI layout directory, an OCI archive, containerd.
//!
//! What is to be written is a [`Shipment`]; each destination takes it in the order that keeps it consistent. Blobs go
//! first, then the documents that name them, and the name of the image comes last: until then nobody sees anything new,
//! and what an interrupted run leaves is used by the next one or collected.

mod copy;
mod error;
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
pub use error::{DestinationError};
pub use copy::{Copied, CopyEvent, CopyProgress, ImageDestination};

/// Blobs that are moved at the same time unless the user says otherwise.
pub const DEFAULT_CONCURRENT_COPIES: usize = 3;

