//! Why a request of containerd fails.

use std::io;
use std::path::{Path, PathBuf};

use super::store::StoreError;

/// Why a request fails. [`crate::daemon::grpc`] maps it to a gRPC status, in one place.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store refuses, or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layer is there, ready to be used: what containerd wants to hear instead of where to unpack it.
    #[error("target snapshot {0:?}: already exists")]
    Ready(String),
    /// The request makes no sense.
    #[error("{0}: invalid argument")]
    Invalid(String),
    /// The request needs containerd's namespace.
    #[error("context has no namespace attached: failed precondition")]
    NoNamespace,
    /// A lazy layer cannot be served right now.
    #[error("{0}: unavailable")]
    Unavailable(String),
    /// A system call failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The root directory cannot be used.
    #[error("cannot use the root directory {}: {reason}", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why not, and what to do about it.
        reason: String,
    },
    /// A task of our own ended early.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<tokio::task::JoinError> for SnapshotError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Internal(error.to_string())
    }
}

pub(super) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { operation, path, source }
}
