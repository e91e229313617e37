//! The local artifact store: index manifests and zTOCs on disk, and what is known about them.
//!
//! ```text
//! ROOT/artifacts.redb            records, see [`Record`]; never open across I/O
//! ROOT/artifacts.lock            held shared by builds, exclusively by removals
//! ROOT/content/oci-layout        an OCI image layout, so that skopeo and the reference can read it
//! ROOT/content/index.json        the index manifests
//! ROOT/content/blobs/sha256/…    mode 0444, named by digest
//! ROOT/content/ingest/…          files being written
//! ```
//!
//! Blobs may be in containerd's content store as well ([`Store::reading_containerd`]), or go there instead
//! ([`Store::writing_containerd`]); the records are here in any case.
//!
//! The reference keeps `artifacts.db` (bbolt) beside the same `content/`. A root that has one is recognised: its
//! database is never written, and its blobs are never deleted.

mod artifacts;
mod error;
mod content;
mod create;
mod database;
mod lock;
mod rebuild;
mod remote;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use registry::{ByteStream, Descriptor, Digest};

pub use content::Content;
pub use create::create_database;
pub use database::{ArtifactKind, Record};
pub use lock::Lease;
pub use rebuild::Rebuilt;
use remote::Remote;

use crate::containerd::{Containerd, ContainerdError, Endpoint};
use crate::manifest::IndexManifest;
use crate::oci::{DocumentError, MAX_MANIFEST_SIZE};
pub use error::{StoreError};
pub use artifacts::{Removed, Store, default_root};
use artifacts::{Inner, blocking};

#[cfg(test)]
mod tests;
