//! Directories that layers are unpacked into before containerd asks for them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The parent of scratch directories, on the file system of the snapshots so that moving one there is a rename.
#[derive(Debug)]
pub struct ScratchRoot {
    directory: PathBuf,
    next: AtomicU64,
}

/// A directory that is removed when dropped, unless it was taken. With the mode that root directories of snapshots
/// have.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    taken: AtomicBool,
}

impl ScratchRoot {
    /// Opens `directory`, and removes what an earlier process left there.
    ///
    /// # Errors
    /// If it cannot be made or emptied.
    pub fn open(directory: &Path) -> io::Result<Self> {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(directory)?,
        }
        Ok(Self { directory: directory.to_owned(), next: AtomicU64::new(0) })
    }

    pub(super) fn create(&self) -> io::Result<Arc<Scratch>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(number.to_string());
        std::fs::create_dir(&path)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Arc::new(Scratch { path, taken: AtomicBool::new(false) }))
    }
}

impl Scratch {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to `target`, which must not exist. Only the first one to ask gets it; `false` for the others.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn take(&self, target: &Path) -> io::Result<bool> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return Ok(false);
        }
        std::fs::rename(&self.path, target).map(|()| true).inspect_err(|_| {
            self.taken.store(false, Ordering::Release);
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.taken.load(Ordering::Acquire) {
            return;
        }
        let path = std::mem::take(&mut self.path);
        // It may hold gigabytes, and whoever lets go of it may be in a hurry, or hold a lock.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&path))),
            Err(_) => remove(&path),
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %path.display(), %error, "cannot remove");
    }
}
