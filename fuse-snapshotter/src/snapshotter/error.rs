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
        reason: RootProblem,
    },
    /// A task of our own ended early.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a directory cannot be the root of a snapshotter.
#[derive(Debug, thiserror::Error)]
pub enum RootProblem {
    /// It has the snapshots of awslabs/soci-snapshotter.
    #[error(
        "it has the snapshots of awslabs/soci-snapshotter ({file}), which this program neither reads nor changes. To \
         migrate, remove the containers and images that use them while that daemon runs, stop it, move {file} away, and \
         pull the images again; or choose another --root"
    )]
    Reference {
        /// The file that gives it away.
        file: &'static str,
    },
    /// Its path cannot be an option of a mount.
    #[error("its path has a `:`, `,` or `\\`, which overlayfs takes for its own")]
    Path,
    /// Its file system says too little about directories.
    #[error(
        "its file system does not say of what type files are when a directory is listed (d_type; XFS needs ftype=1), \
         which overlayfs needs"
    )]
    NoTypes,
    /// Something that every snapshot needs does not work there.
    #[error("cannot {operation} there: {error}")]
    Trial {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// Its path cannot be made an absolute one.
    #[error(transparent)]
    Absolute(io::Error),
    /// The trial at start-up failed.
    #[error("{0}; choose another --root, or set skip_check_snapshotter_supported")]
    AtStart(Box<RootProblem>),
}

impl From<tokio::task::JoinError> for SnapshotError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<std::io::Error> for SnapshotError {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

pub(super) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { operation, path, source }
}
