//! The one place where errors become gRPC statuses.

use tonic::{Code, Status};

use crate::snapshotter::SnapshotError;
use crate::snapshotter::store::StoreError;

/// The status that containerd's clients expect for an error.
pub(super) fn status(error: &SnapshotError) -> Status {
    let code = match error {
        SnapshotError::Store(error) => match error {
            StoreError::NotFound(_) => Code::NotFound,
            StoreError::AlreadyExists(_) => Code::AlreadyExists,
            StoreError::InvalidArgument(_) => Code::InvalidArgument,
            StoreError::FailedPrecondition(_) => Code::FailedPrecondition,
            _ => Code::Internal,
        },
        SnapshotError::Invalid(_) => Code::InvalidArgument,
        SnapshotError::NoNamespace => Code::FailedPrecondition,
        SnapshotError::Unavailable(_) => Code::Unavailable,
        SnapshotError::Io { .. } | SnapshotError::Root { .. } | SnapshotError::Internal(_) => Code::Internal,
    };
    if matches!(code, Code::Internal | Code::Unavailable) {
        tracing::error!(%error, "a request failed");
    } else {
        tracing::debug!(%error, "a request was refused");
    }
    Status::new(code, error.to_string())
}

/// The status that containerd's clients expect when a layer is there and need not be unpacked.
pub(super) fn ready(target: &str) -> Status {
    let error = format!("target snapshot {target:?}: already exists");
    tracing::debug!(%error, "a request was refused");
    Status::new(Code::AlreadyExists, error)
}
