//! Why the file system cannot do something.

use crate::content::FetchError;

/// The one error type of the file system. The fronts map it to an errno in one place, `errno`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FsError {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// No such inode: its tree is gone, or the kernel asks for a number that it was never given.
    #[error("no such inode")]
    Stale,
    /// A directory is needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory is needed.
    #[error("is a directory")]
    IsDirectory,
    /// The operation makes no sense for this kind of file.
    #[error("invalid for this kind of file")]
    Invalid,
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoAttribute,
    /// The content cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl FsError {
    /// Whether the file system failed, and not only the request was wrong.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Stale | Self::Fetch(_))
    }
}
