//! File systems that are configured step by step: fsopen(2), fsconfig(2) and fsmount(2).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::error::ErofsError;

/// Most of what the kernel has to say about a mount that it refuses.
const MAX_SAID: usize = 1024;

/// A file system that is being configured.
pub(super) struct Context {
    fd: OwnedFd,
    /// What is being done, for errors.
    what: &'static str,
}

impl Context {
    pub(super) fn open(kind: &str, what: &'static str) -> Result<Self, ErofsError> {
        let fd = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC);
        let fd = fd.map_err(|error| ErofsError::Kernel { what, error: error.into(), said: String::new() })?;
        Ok(Self { fd, what })
    }

    pub(super) fn flag(&self, key: &str) -> Result<(), ErofsError> {
        fsconfig_set_flag(self.fd.as_fd(), key).map_err(|error| self.failed(self.what, error))
    }

    pub(super) fn string(&self, key: &str, value: &Path) -> Result<(), ErofsError> {
        fsconfig_set_string(self.fd.as_fd(), key, value).map_err(|error| self.failed(self.what, error))
    }

    /// Makes the file system, read-only, and a mount of it that is attached nowhere.
    pub(super) fn mount(&self, flags: MountAttrFlags) -> Result<OwnedFd, ErofsError> {
        self.flag("ro")?;
        fsconfig_create(self.fd.as_fd())
            .and_then(|()| fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags))
            .map_err(|error| self.failed(self.what, error))
    }

    /// The error for what the kernel refused, with its reasons if it gives any.
    pub(super) fn failed(&self, what: &'static str, error: Errno) -> ErofsError {
        let mut said = String::new();
        let mut buffer = [0; MAX_SAID];
        // One message each time, until there is none.
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut buffer)
            && said.len() < MAX_SAID
        {
            let message = String::from_utf8_lossy(&buffer[..length]);
            said += &format!(" ({})", message.trim_end());
        }
        ErofsError::Kernel { what, error: error.into(), said }
    }
}
