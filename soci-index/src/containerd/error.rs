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
    /// The connection broke before there was an answer: containerd has ended, or was ended by what it was asked.
    #[error("containerd went away: {operation}: {reason}")]
    Gone {
        /// What was being done.
        operation: String,
        /// What became of the connection.
        reason: String,
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
        // Only a status that was made on this side has a cause; one that containerd sent is words.
        if let Some(cause) = std::error::Error::source(status) {
            let reason = crate::text::excerpt_to(&format!("{}: {cause}", status.message()), 1000);
            return Self::Gone { operation: operation.to_owned(), reason };
        }
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

    /// Whether nobody is there who could have done it.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Connect { .. })
    }

    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    pub(crate) fn already_exists(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }
}
