//! Owners, modes, extended attributes and times.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use ztoc::Timestamp;

use super::error::shown;

/// Most warnings per layer; a layer can have millions of entries that deserve one.
const MAX_WARNINGS: u32 = 20;

/// What describes a file.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    /// Permissions, with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None` to leave it as it is.
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What was tried, and what the kernel said.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) operation: &'static str,
    pub(super) source: Errno,
}

/// Names an operation that may fail.
pub(super) fn op<T>(operation: &'static str, result: Result<T, Errno>) -> Result<T, Failure> {
    result.map_err(|source| Failure { operation, source })
}

/// Warnings about one layer, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Warnings(u32);

impl Warnings {
    pub(super) fn warn(&mut self, path: &[u8], what: &str) {
        self.0 = self.0.saturating_add(1);
        if self.0 <= MAX_WARNINGS {
            tracing::warn!(path = %shown(path), "unpack: {what}");
        } else if self.0 == MAX_WARNINGS + 1 {
            tracing::warn!("unpack: more such warnings about this layer are left out");
        }
    }
}

/// Writes attributes. The order matters: chown(2) clears setuid bits and capabilities, so it comes first.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) ownership: bool,
    pub(super) warnings: Warnings,
}

impl Writer {
    /// Describes an open file or directory.
    pub(super) fn write_open(
        &mut self,
        path: &[u8],
        fd: BorrowedFd<'_>,
        of: &Attributes,
    ) -> Result<(), Failure> {
        if self.ownership {
            let (uid, gid) = owner(of);
            op("change the owner", rustix::fs::fchown(fd, uid, gid))?;
        }
        for (name, value) in xattrs(of) {
            let result = rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
            self.xattr_result(path, name, true, result)?;
        }
        op("change the mode", rustix::fs::fchmod(fd, Mode::from_raw_mode(of.mode)))?;
        if let Some(times) = times(of) {
            op("set the times", rustix::fs::futimens(fd, &times))?;
        }
        Ok(())
    }

    /// Describes a file that cannot be opened: a link, a device or a pipe that was just made in `directory`.
    pub(super) fn write_named(
        &mut self,
        path: &[u8],
        (directory, name): (BorrowedFd<'_>, &[u8]),
        is_symlink: bool,
        of: &Attributes,
    ) -> Result<(), Failure> {
        if self.ownership {
            let (uid, gid) = owner(of);
            let result = rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            op("change the owner", result)?;
        }
        if !of.xattrs.is_empty() {
            // There is no call that takes a directory's descriptor below Linux 6.13. The magic link leads to
            // the directory whatever its path is, and `name` itself is not followed.
            let mut proc = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
            proc.extend_from_slice(name);
            let proc = op("set extended attributes", CString::new(proc).map_err(|_| Errno::INVAL))?;
            for (name, value) in xattrs(of) {
                let result = rustix::fs::lsetxattr(proc.as_c_str(), name, value, XattrFlags::empty());
                self.xattr_result(path, name, false, result)?;
            }
        }
        if !is_symlink {
            // Follows links, but this is none, and nobody else is here to make it one.
            let mode = Mode::from_raw_mode(of.mode);
            op("change the mode", rustix::fs::chmodat(directory, name, mode, AtFlags::empty()))?;
        }
        if let Some(times) = times(of) {
            let result = rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
            op("set the times", result)?;
        }
        Ok(())
    }

    /// What the file system cannot hold is left out, as containerd does; so is what an ordinary user may not
    /// set, and what the kernel allows on files and directories only.
    fn xattr_result(
        &mut self,
        path: &[u8],
        name: &[u8],
        file_or_directory: bool,
        result: Result<(), Errno>,
    ) -> Result<(), Failure> {
        let not_permitted = !self.ownership || (!file_or_directory && name.starts_with(b"user."));
        match result {
            Err(Errno::OPNOTSUPP) => {
                self.warnings.warn(path, "an extended attribute that the file system does not support");
                Ok(())
            }
            Err(Errno::PERM | Errno::ACCESS) if not_permitted => {
                self.warnings.warn(path, "an extended attribute that may not be set");
                Ok(())
            }
            other => op("set an extended attribute", other),
        }
    }
}

/// What overlayfs writes about its own doings is not for a layer to say.
fn xattrs(of: &Attributes) -> impl Iterator<Item = (&[u8], &[u8])> {
    of.xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(|(name, _)| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay."))
}

fn owner(of: &Attributes) -> (Option<Uid>, Option<Gid>) {
    // All ones is -1, which means "as it is" to chown(2).
    ((of.uid != u32::MAX).then(|| Uid::from_raw(of.uid)), (of.gid != u32::MAX).then(|| Gid::from_raw(of.gid)))
}

fn times(of: &Attributes) -> Option<Timestamps> {
    let time = of.mtime?;
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Some(Timestamps { last_access: time, last_modification: time })
}
