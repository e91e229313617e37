//! A client of containerd: images, content, snapshots, leases, applying of layers.
//!
//! Every method bounds what it reads and how long it waits for an answer, except for calls in which containerd, or a
//! snapshotter behind it, moves a layer's bytes. A socket that nobody listens at is an error at once.
//!
//! What is written should be written under a [`Lease`]: without one, containerd's garbage collector may take it before
//! the reference is made that keeps it.

mod connection;
mod about;
mod content;
mod error;
mod images;
pub mod labels;
mod lease;
mod snapshots;
mod write;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containerd_api::types;
use hyper_util::rt::TokioIo;
use registry::Descriptor;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub use about::Plugin;
pub use content::{ContainerdBlob, ContentInfo};
pub use error::ContainerdError;
pub use images::Image;
pub use lease::Lease;
pub use snapshots::{Prepared, Snapshot};
pub use write::{Opened, Writer, Written};
pub use connection::{Containerd, DEFAULT_ADDRESS, DEFAULT_NAMESPACE, Endpoint};
use connection::{Connection, FIRST_ANSWER, MAX_MESSAGE, PATIENCE, call, dial, found, message_of};

