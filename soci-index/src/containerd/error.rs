//! What can go wrong with containerd.

use std::io;
use std::time::Duration;

use registry::Digest;
use tonic::{Code, Status};

/// Why containerd did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerdError {
    /// Nobody listens at the socket, or this user may not connect.
    #[error("cannot connect to containerd at {address}: {source}")]
    Connect {
        /// The socket.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The address, namespace or another text cannot be sent.
    #[error("{0}")]
    Invalid(String),
    /// Somebody listens and does not answer.
    #[error("containerd: {operation}: no answer for {} s", limit.as_secs())]
    Silent {
        /// What was being done.
        operation: String,
        /// How long was waited.
        limit: Duration,
    },
    /// containerd, or a plugin of it, refused.
    #[error("containerd: {operation}: {message}")]
    Refused {
        /// What was being done.
        operation: String,
        /// Kind of refusal.
        code: Code,
        /// containerd's words.
        message: String,
    },
    /// There is no snapshotter of this name.
    #[error("containerd has no snapshotter {name:?}{reason}; it has: {available}")]
    NoSnapshotter {
        /// The name.
        name: String,
        /// Why it does not work, if containerd knows it; begins with a space.
        reason: String,
        /// Those that work, divided by commas.
        available: String,
    },
    /// Content is not what its descriptor says.
    #[error("containerd: {digest} {problem}")]
    Damaged {
        /// The digest expected.
        digest: Digest,
        /// What was found.
        problem: String,
    },
    /// Somebody else is writing the same content and makes no progress.
    #[error(
        "containerd: another client has been writing {0} without progress; stop it, or try again when it has finished"
    )]
    Locked(Digest),
    /// What was to be written could not be read.
    #[error(transparent)]
    Source(#[from] registry::Error),
}

impl ContainerdError {
    pub(super) fn refused(operation: &str, status: &Status) -> Self {
        Self::Refused {
            operation: operation.to_owned(),
            code: status.code(),
            // containerd's messages are chains of causes, and the last one says most.
            message: crate::text::excerpt_to(status.message(), 1000),
        }
    }

    /// The kind of refusal, if it is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    pub(crate) fn already_exists(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }
}
