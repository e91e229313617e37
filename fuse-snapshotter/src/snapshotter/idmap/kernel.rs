//! The kernel's own way: id-mapped mounts.
//!
//! A FUSE file system can be id-mapped from Linux 6.12 on, ext4 and others from 5.12, xfs from 5.15, btrfs from 5.15;
//! and overlayfs takes what is id-mapped from 5.19. Distributions port such things back, so nothing is told from the
//! version.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};

use crate::fronts::forest::{IdMaps, IdRange};

/// Why the ids of a directory are not mapped by the kernel.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum WhyNotMapped {
    /// The configuration says so.
    #[error("it is configured so")]
    Configured,
    /// It is a tree, and the kernel is too old for that.
    #[error("the kernel cannot map ids of FUSE file systems, as Linux 6.12 can")]
    Fuse,
    /// There is no user namespace to take the mapping from.
    #[error("cannot make a user namespace: {0}")]
    Namespace(Arc<io::Error>),
    /// Its file system refuses.
    #[error("cannot map the ids of {}: {error}", directory.display())]
    Mount {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        error: Arc<io::Error>,
    },
    /// Overlayfs refuses what is mapped.
    #[error("overlayfs does not take id-mapped layers, as in Linux 5.19: {0}")]
    NotStackable(Arc<io::Error>),
}

/// Makes user namespaces, which stand for mappings where the kernel wants one.
#[derive(Debug)]
pub(super) struct UserNamespaces {
    program: (PathBuf, Vec<String>),
}

impl UserNamespaces {
    /// `program` enters a new user namespace, says so with a byte on its standard output, and waits for its standard
    /// input to end. A thread of this process could not: a process with several threads stays in its namespace.
    pub(super) fn new(program: (PathBuf, Vec<String>)) -> Self {
        Self { program }
    }

    /// A user namespace with this mapping.
    pub(super) fn create(&self, ids: &IdMaps) -> io::Result<OwnedFd> {
        let (path, arguments) = &self.program;
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let opened = (|| {
            let mut ready = [0];
            let output = child.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            output.read_exact(&mut ready)?;
            let process = PathBuf::from(format!("/proc/{}", child.id()));
            std::fs::write(process.join("uid_map"), table(&ids.uids))?;
            std::fs::write(process.join("gid_map"), table(&ids.gids))?;
            Ok(OwnedFd::from(File::open(process.join("ns/user"))?))
        })();
        drop(child.stdin.take());
        let _ = child.kill();
        child.wait()?;
        opened
    }
}

/// A mapping as the kernel reads it.
fn table(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.container, range.host, range.size)).collect()
}

/// Whether overlayfs takes an id-mapped mount. What is made for that is never mounted, so nothing is left of it.
pub(super) fn check_stackable(mapped: &Path) -> io::Result<()> {
    // An overlay of directories needs two.
    let other = tempdir_beside(mapped)?;
    let tried = (|| {
        let layers = [mapped, &other].map(|path| path.to_str().unwrap_or_default());
        let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(overlay.as_fd(), "lowerdir", layers.join(":"))?;
        fsconfig_create(overlay.as_fd())
    })();
    std::fs::remove_dir(&other)?;
    Ok(tried?)
}

/// An empty directory beside a path, which has a directory of its own.
fn tempdir_beside(path: &Path) -> io::Result<PathBuf> {
    let other = path.with_file_name("empty");
    match std::fs::create_dir(&other) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gets_a_line_for_each_range() {
        let range = |container, host, size| IdRange { container, host, size };
        assert_eq!(table(&[range(0, 100, 10), range(10, 200, 5)]), "0 100 10\n10 200 5\n");
    }
}
