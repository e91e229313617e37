//! Locks between processes, each a `flock` on a file of the store.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::StoreError;

/// How long to wait for another process. A user who waits longer wants to know why.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A lock that is held until it is dropped; the system drops it when the process dies.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Lease {
    pub(super) fn shared(path: &Path) -> Result<Self, StoreError> {
        Self::acquire(path, File::try_lock_shared)
    }

    pub(super) fn exclusive(path: &Path) -> Result<Self, StoreError> {
        Self::acquire(path, File::try_lock)
    }

    /// The lock for changing `index.json`.
    pub(super) fn layout(root: &Path) -> Result<Self, StoreError> {
        Self::exclusive(&root.join("layout.lock"))
    }

    fn acquire(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::io(path))?;
        let start = Instant::now();
        loop {
            match lock(&file) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(StoreError::Busy { path: path.to_owned() }),
                Err(TryLockError::Error(source)) => {
                    return Err(StoreError::Io { path: path.to_owned(), source });
                }
            }
        }
    }
}
