//! Id-mapped mounts: the owners of a mount's files translated by a user namespace, without touching the files.
//!
//! `rustix` has open_tree(2) and move_mount(2) but not mount_setattr(2), so that system call is made here.
#![expect(unsafe_code, reason = "mount_setattr(2) has no safe interface")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// Mounts `source`, a directory, once more at `target`, with owners translated by the user namespace `userns`: what
/// belongs to id n in the file system belongs at `target` to the id that n of the namespace is in the host. Mounts
/// below `source` do not come along. Neither path's last component is followed if it is a symbolic link.
///
/// Nobody sees the mount before the translation is in force, and nothing is left behind if any step fails.
///
/// # Errors
/// `EINVAL` if the kernel or the file system cannot id-map (FUSE: kernel 6.12 and `FUSE_ALLOW_IDMAP`), and what
/// open_tree(2), mount_setattr(2) and move_mount(2) say.
pub fn id_mapped_clone(source: &Path, target: &Path, userns: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    let detached = open_tree(CWD, source, flags)?;
    set_id_map(detached.as_fd(), userns)?;
    move_mount(detached, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// mount_setattr(2) with `MOUNT_ATTR_IDMAP`.
fn set_id_map(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        // A descriptor is never negative.
        userns_fd: u64::from(userns.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: the path is a C string that lives for ever, `attributes` is what the kernel expects and lives until
    // the call returns, its size is passed along, the kernel only reads from both, and both descriptors are
    // borrowed for the whole call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
