//! What can go wrong with the store.

use std::path::{Path, PathBuf};

/// A call that was refused, or a store that failed.
///
/// The first four stand for the gRPC codes of the same names; their texts end as containerd's do, because its clients
/// cut that ending off.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such snapshot.
    #[error("{0}: not found")]
    NotFound(String),
    /// The key or name is taken.
    #[error("{0}: already exists")]
    AlreadyExists(String),
    /// The request makes no sense, whatever the store holds.
    #[error("{0}: invalid argument")]
    InvalidArgument(String),
    /// The snapshot is not in the state that the request needs.
    #[error("{0}: failed precondition")]
    FailedPrecondition(String),
    /// Another process has the store open.
    #[error(
        "snapshot store {} is in use: another soci-snapshotter-grpc runs with this root; stop it, or give this one a root of its own",
        path.display()
    )]
    Busy {
        /// The store's file.
        path: PathBuf,
    },
    /// The file's contents cannot be trusted.
    #[error(
        "snapshot store {} is damaged ({reason}): stop the daemon, move the file and the snapshots directory beside it out of the way, remove the images that use this snapshotter from containerd, and pull them again",
        path.display()
    )]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is not a snapshot store of a version known here.
    #[error("snapshot store {} {found}; this program reads format {known}: use the version that wrote it, or another root", path.display())]
    Format {
        /// The store's file.
        path: PathBuf,
        /// What it is instead.
        found: String,
        /// The format this program reads and writes.
        known: u64,
    },
    /// Reading or writing failed. The call had no effect and may be repeated.
    #[error("snapshot store {}: {source}", path.display())]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database failed in another way. The call had no effect.
    #[error("snapshot store {}: {reason}", path.display())]
    Database {
        /// The store's file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// Why a transaction ended early. It knows nothing of paths, so that `?` works on each of redb's error types.
#[derive(Debug)]
pub(super) enum Failure {
    /// The caller's mistake; says which.
    Refused(StoreError),
    /// The contents contradict themselves.
    Damaged(String),
    /// redb failed.
    Storage(Box<redb::Error>),
}

impl Failure {
    /// Whether the database refuses everything from now on, until it is opened anew: redb does so after a failed
    /// write, when memory and file may differ.
    pub(super) fn needs_reopening(&self) -> bool {
        matches!(self, Self::Storage(error) if matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo))
    }

    pub(super) fn at(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Refused(error) => error,
            Self::Damaged(reason) => StoreError::Damaged { path, reason },
            Self::Storage(error) => match *error {
                redb::Error::DatabaseAlreadyOpen => StoreError::Busy { path },
                redb::Error::Corrupted(reason) => StoreError::Damaged { path, reason },
                // What redb says of a file that is not one of its own.
                redb::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
                    StoreError::Damaged { path, reason: source.to_string() }
                }
                // A file that ends too early.
                redb::Error::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                    StoreError::Damaged { path, reason: source.to_string() }
                }
                redb::Error::Io(source) => StoreError::Io { path, source },
                other => StoreError::Database { path, reason: other.to_string() },
            },
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::Storage(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);
