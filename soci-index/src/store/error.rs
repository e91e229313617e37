//! Why the store cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use registry::Digest;

use crate::containerd::ContainerdError;
use crate::oci::DocumentError;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store.
    #[error("artifact store: {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process kept the store for longer than this one waits.
    #[error("artifact store: {} is in use by another process; try again when it has finished", path.display())]
    Busy {
        /// The file that is locked.
        path: PathBuf,
    },
    /// The database failed.
    #[error("artifact store: {}: {reason}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
    /// A blob is not there.
    #[error("artifact store: {0} is not in the store")]
    Missing(Digest),
    /// A blob does not have its digest any more.
    #[error("artifact store: {0} is damaged ({1}); run `soci create --force` to build it again")]
    Damaged(Digest, String),
    /// A manifest in the store cannot be parsed.
    #[error("artifact store: {0}: {1}")]
    Document(Digest, DocumentError),
    /// containerd, which has blobs of the store, failed.
    #[error("artifact store: {0}")]
    Containerd(#[source] Box<ContainerdError>),
    /// A background task ended without a result.
    #[error("artifact store: internal error: {0}")]
    Task(String),
}

impl From<ContainerdError> for StoreError {
    fn from(error: ContainerdError) -> Self {
        Self::Containerd(Box::new(error))
    }
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
