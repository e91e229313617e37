//! The shelf of zTOCs: those of the layers in use, on this disk.
//!
//! The daemon has a directory of them, each named by its digest in hexadecimal: whatever happens to the registry, a
//! layer that was committed can be opened again. A mount without a daemon keeps each beside what is cached of its
//! layer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use registry::{Descriptor, Digest};

use super::layer_key::LayerKey;
use super::origin::{FetchArtifactError, ImageOrigin};
use crate::base::metrics::Operation;
use crate::content::FetchContext;
use crate::content::cache::CacheRoot;

/// The name of a zTOC beside the cached blocks of its layer.
const BESIDE_CACHE: &str = "ztoc";

/// zTOCs on this disk.
#[derive(Debug)]
pub(crate) struct ZtocShelf {
    place: Place,
    /// Makes names of temporary files differ.
    next: AtomicU64,
}

#[derive(Debug)]
enum Place {
    /// All in this directory, for good.
    Directory(PathBuf),
    /// Each with its layer in the cache, as long as that is there.
    Cache(Arc<CacheRoot>),
}

/// A zTOC's bytes, verified.
#[derive(Debug)]
pub(super) struct ShelvedZtoc {
    pub(super) bytes: Bytes,
    /// Whether they were read from the shelf.
    pub(super) stored: bool,
}

/// Why there is no zTOC.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeZtocError {
    #[error(transparent)]
    Fetch(#[from] FetchArtifactError),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

impl ZtocShelf {
    /// The daemon's shelf. Removes what an earlier process did not finish.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().contains('.') {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { place: Place::Directory(directory.to_owned()), next: AtomicU64::new(0) })
    }

    /// The shelf of a mount.
    pub(crate) fn beside(cache: &Arc<CacheRoot>) -> Self {
        Self { place: Place::Cache(Arc::clone(cache)), next: AtomicU64::new(0) }
    }

    fn path(&self, key: &LayerKey) -> PathBuf {
        match &self.place {
            Place::Directory(directory) => directory.join(key.ztoc.hex()),
            Place::Cache(cache) => cache.layer_directory(key.layer.hex(), key.ztoc.hex()).join(BESIDE_CACHE),
        }
    }

    /// The directory that the zTOC of a layer is in, or would be.
    pub(super) fn directory_of(&self, key: &LayerKey) -> PathBuf {
        self.path(key).parent().map(Path::to_owned).unwrap_or_default()
    }

    /// A zTOC: from the shelf, or from where the image comes from.
    pub(super) async fn take(
        self: &Arc<Self>,
        origin: &ImageOrigin,
        shared: &FetchContext,
        key: &LayerKey,
        ztoc: &Descriptor,
    ) -> Result<ShelvedZtoc, TakeZtocError> {
        let (shelf, wanted) = (Arc::clone(self), key.clone());
        if let Some(bytes) = tokio::task::spawn_blocking(move || shelf.load(&wanted)).await? {
            return Ok(ShelvedZtoc { bytes, stored: true });
        }
        let metrics = shared.metrics().layer(&key.layer);
        let started = Instant::now();
        let bytes = origin.fetch_ztoc(ztoc).await?;
        metrics.observe(Operation::ZtocFetch, started.elapsed());
        Ok(ShelvedZtoc { bytes, stored: false })
    }

    /// Reads a zTOC. One that is not there or damaged is none.
    pub(super) fn load(&self, key: &LayerKey) -> Option<Bytes> {
        let bytes = std::fs::read(self.path(key)).ok()?;
        if Digest::of(&bytes) != key.ztoc {
            tracing::warn!(digest = %key.ztoc, "a stored zTOC is damaged");
            return None;
        }
        Some(bytes.into())
    }

    /// Puts a zTOC on the shelf, whole or not at all, unless it was `stored` and still is, and opens it: the windows of
    /// its checkpoints are read from there. In the daemon's directory it survives a power failure once this returns.
    pub(super) fn keep(&self, key: &LayerKey, bytes: &[u8], stored: bool) -> io::Result<File> {
        let path = self.path(key);
        // Even if it was there a moment ago: the layer may have been removed since.
        if !stored || !path.exists() {
            // An image may have the same layer twice, and both are prepared at once.
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            match &self.place {
                Place::Directory(directory) => {
                    let temporary = directory.join(format!("{}.{number}", key.ztoc.hex()));
                    crate::base::durable::write(&path, &temporary, bytes)?;
                }
                Place::Cache(_) => {
                    let name = format!("{BESIDE_CACHE}.{}.{number}", std::process::id());
                    let temporary = path.with_file_name(name);
                    std::fs::write(&temporary, bytes)?;
                    std::fs::rename(&temporary, &path)?;
                }
            }
        }
        File::open(path)
    }

    /// Removes from the daemon's directory all that `keep` does not want, by their digests in hexadecimal. What lies
    /// beside a cache goes with that.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        let Place::Directory(directory) = &self.place else { return Ok(()) };
        for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.contains('.') && !keep(&name) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
