//! A client of containerd: images, content, snapshots, leases, applying of layers.
//!
//! Every method bounds what it reads and how long it waits for an answer, except for calls in which containerd, or a
//! snapshotter behind it, moves a layer's bytes. A socket that nobody listens at is an error at once.
//!
//! What is written should be written under a [`Lease`]: without one, containerd's garbage collector may take it before
//! the reference is made that keeps it.

mod about;
mod connection;
mod content;
mod error;
mod images;
pub mod labels;
mod lease;
mod snapshots;
mod write;

pub use about::Plugin;
pub use connection::{Containerd, DEFAULT_ADDRESS, DEFAULT_NAMESPACE, Endpoint};
pub use content::{ContainerdBlob, ContentInfo};
pub use error::ContainerdError;
pub use images::Image;
pub use lease::Lease;
pub use snapshots::{Prepared, Snapshot};
pub use write::{Opened, Writer, Written};
