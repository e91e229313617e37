//! Where images go: a registry, an OCI layout directory, an OCI archive, containerd.
//!
//! What is to be written is a [`Shipment`]; each destination takes it in the order that keeps it consistent. Blobs go
//! first, then the documents that name them, and the name of the image comes last: until then nobody sees anything new,
//! and what an interrupted run leaves is used by the next one or collected.

mod archive;
mod containerd;
mod copy;
mod error;
mod layout;
mod progress;
mod remote;
mod shipment;
mod spec;

pub use archive::ArchiveDestination;
pub use containerd::ContainerdDestination;
pub use layout::{LayoutDestination, Listing};
pub use remote::RegistryDestination;
pub use shipment::{Origin, Part, Shipment};
pub use spec::DestinationSpec;

pub use copy::ImageDestination;
pub use error::DestinationError;
pub use progress::{Copied, CopyEvent, CopyProgress};

/// Blobs that are moved at the same time unless the user says otherwise.
pub const DEFAULT_CONCURRENT_COPIES: usize = 3;
