//! The one place where errors become errnos, and where errors of reading are logged.

use fuser::Errno;

use super::forest::FsError;

/// The errno for an error of a file system. Errors of reading are logged.
pub(super) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Stale => Errno::ESTALE,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::Invalid => Errno::EINVAL,
        FsError::NoAttribute => Errno::ENODATA,
        FsError::Fetch(error) => {
            tracing::error!(%error, "failed to read the file");
            Errno::EIO
        }
    }
}
