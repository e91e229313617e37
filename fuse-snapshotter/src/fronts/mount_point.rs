//! What is mounted at a path, and unmounting it.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{UnmountFlags, unmount};

/// Whether something is mounted at a path. A mount that nobody serves any more gives errors, but is there.
pub(crate) fn is_mounted(path: &Path) -> bool {
    match statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS) {
        // Every supported kernel (5.10 and later) fills in this attribute.
        Ok(stat) => stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        Err(rustix::io::Errno::NOENT) => false,
        Err(_) => true,
    }
}

/// Unmounts what is mounted at a path. If files are open there, it is detached, and they stay usable.
pub(crate) fn detach(path: &Path) {
    if let Err(error) = unmount(path, UnmountFlags::empty())
        && let Err(detach) = unmount(path, UnmountFlags::DETACH)
    {
        tracing::warn!(path = %path.display(), %error, %detach, "cannot unmount");
    }
}

/// Unmounts what is mounted at a path, if anything is.
pub(crate) fn detach_if_mounted(path: &Path) {
    if is_mounted(path) {
        detach(path);
    }
}
