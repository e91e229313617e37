//! The zTOCs of layers in use, on disk: whatever happens to the registry, a layer that was committed can be opened again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use registry::Digest;

/// A directory of zTOCs, each named by its digest in hexadecimal.
#[derive(Debug)]
pub(super) struct ZtocFiles {
    directory: PathBuf,
    /// Makes names of temporary files differ.
    next: AtomicU64,
}

impl ZtocFiles {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
            // What an earlier process did not finish.
            if entry.file_name().to_string_lossy().contains('.') {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { directory: directory.to_owned(), next: AtomicU64::new(0) })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// Reads a zTOC. One that is not there or damaged is none.
    pub(super) fn load(&self, digest: &Digest) -> Option<Bytes> {
        let bytes = std::fs::read(self.path(digest)).ok()?;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(%digest, "a stored zTOC is damaged");
            return None;
        }
        Some(bytes.into())
    }

    /// Stores a zTOC for good: it survives a power failure once this returns.
    pub(super) fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{}.{number}", digest.hex()));
        crate::base::durable::write(&self.path(digest), &temporary, bytes)
    }

    /// The file of a stored zTOC, for the windows of its checkpoints.
    pub(super) fn file(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// Removes all that `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.directory)?.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.contains('.') && !keep(&name) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
