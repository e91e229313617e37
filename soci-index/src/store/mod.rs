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
mod content;
mod create;
mod database;
mod error;
mod lock;
mod rebuild;
mod remote;

pub use content::Content;
pub use create::create_database;
pub use database::{ArtifactKind, Record};
pub use lock::Lease;
pub use rebuild::Rebuilt;

pub use artifacts::{Removed, Store, default_root};
pub use error::StoreError;

#[cfg(test)]
mod tests;
