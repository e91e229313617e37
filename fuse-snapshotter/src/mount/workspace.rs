//! The directory of one mount: unpacked layers, mount points of runs.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};

use super::error::{MountImageError, io_error};

/// A directory under `ROOT/mounts`, removed with all it holds when dropped. What a killed process left behind is
/// removed by the next one: its lock is free.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    /// Held as long as the directory is in use.
    _lock: File,
}

impl Workspace {
    pub(super) fn create(root: &Path) -> Result<Self, MountImageError> {
        let mounts = root.join("mounts");
        std::fs::create_dir_all(&mounts).map_err(io_error("create", &mounts))?;
        // Held until our own directory is locked, so that nobody takes it for one that was left behind.
        let guard = std::fs::File::create(mounts.join("lock")).map_err(io_error("create", &mounts))?;
        flock(&guard, FlockOperation::LockExclusive)
            .map_err(|error| io_error("lock", &mounts)(error.into()))?;
        sweep(&mounts);
        let pid = std::process::id();
        for attempt in 0u32.. {
            // Short, since overlayfs takes all paths in one option of at most a page.
            let path = mounts.join(format!("{pid}-{attempt}"));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let lock = lock(&path).ok_or_else(|| {
                        io_error("lock", &path)(std::io::Error::from(std::io::ErrorKind::ResourceBusy))
                    })?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("create", &path)(error)),
            }
        }
        Err(io_error("create", &mounts)(std::io::Error::other("no free name")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory in it.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, MountImageError> {
        let path = self.path.join(name);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(io_error("create", &path)(error))
            }
            _ => Ok(path),
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn lock(directory: &Path) -> Option<File> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock")).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn sweep(mounts: &Path) {
    for entry in std::fs::read_dir(mounts).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && lock(&entry.path()).is_some() {
            tracing::info!(directory = %entry.path().display(), "removing what an earlier mount left behind");
            remove(&entry.path());
        }
    }
}

/// Unmounts what is mounted in a workspace, and then removes it.
fn remove(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        while unmount(entry.path(), UnmountFlags::DETACH).is_ok() {}
    }
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %directory.display(), %error, "cannot remove");
    }
}
