//! The persistent cache of layer contents.
//!
//! ```text
//! ROOT/lock                              held by the process that owns the cache
//! ROOT/<layer hex>-<zTOC hex>/data       contents, sparse: each file starts at a 4 KiB boundary
//! ROOT/<layer hex>-<zTOC hex>/blocks     one 32-bit word a block: 0 absent, else its CRC-32C with bit 0 set
//! ROOT/<layer hex>-<zTOC hex>/ztoc       the zTOC, for the windows of its checkpoints
//! ```
//!
//! The key is the pair of layer and zTOC, shared by all images that have both: ranged reads are never checked
//! against the layer's digest, so a cache keyed by the layer alone would serve what one image's lying zTOC makes
//! of a public layer to every other image.
//!
//! A disk that is full or fails costs the cache, not the read: what it does not take is kept in memory while readers
//! wait for it (`memory`), and room is made below the limit (`disk`).
//!
//! Nothing is synced: a block from before the process started is checked against its CRC on first use, so
//! whatever a power failure loses or tears is simply fetched again.

mod blocks;
mod disk;
mod evict;
mod layer;
mod memory;
mod parts;
mod usage;
mod writer;

#[cfg(test)]
mod tests;

use crate::base::lock::lock;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{FlockOperation, flock};

use disk::Disk;
use usage::Usage;

pub use layer::LayerCache;
pub(crate) use layer::Pin;
pub(crate) use parts::Parts;
pub use writer::{ContentWriter, Published};

/// Size of a cache block in bytes: a page, the unit in which the kernel asks.
pub const BLOCK_SIZE: u64 = 4096;

/// Most bytes that are evicted at once: some hundred system calls, on a thread that others wait for.
const MAX_SLACK: u64 = 256 << 20;

/// Fewest bytes that are evicted at once when the disk is full: some spans.
const MIN_STEP: u64 = 8 << 20;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Another process has it.
    #[error("the cache {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file system refused something.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { operation, path, source }
}

/// A directory of layer caches, owned by one process.
#[derive(Debug)]
pub struct CacheRoot {
    directory: PathBuf,
    /// Bytes of blocks that all layers together may hold.
    limit: u64,
    usage: Arc<Usage>,
    disk: Arc<Disk>,
    layers: Mutex<HashMap<PathBuf, Weak<LayerCache>>>,
    /// Held by whoever makes room.
    trimming: Mutex<()>,
    /// Dropping it releases the lock.
    _lock: File,
}

impl CacheRoot {
    /// Opens or creates the cache in `directory`; `limit` bounds its blocks, in bytes.
    ///
    /// # Errors
    /// [`CacheError::InUse`] if another process owns it.
    pub fn open(directory: &Path, limit: u64) -> Result<Self, CacheError> {
        std::fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(CacheError::InUse(directory.to_owned())),
            Err(error) => return Err(io_error("lock", &path)(error.into())),
        }
        let usage = Arc::<Usage>::default();
        for entry in std::fs::read_dir(directory).map_err(io_error("list", directory))?.filter_map(Result::ok)
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // What it takes up; only opening it would tell how many of its blocks are valid.
                let taken = std::fs::metadata(entry.path().join("data")).map_or(0, |m| m.blocks() * 512);
                usage.found(entry.path(), taken);
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            limit,
            usage,
            disk: Arc::default(),
            layers: Mutex::default(),
            trimming: Mutex::default(),
            _lock: lock,
        })
    }

    /// The directory of the cache of a layer with a zTOC. Both are given as hex digests.
    #[must_use]
    pub fn layer_directory(&self, layer: &str, ztoc: &str) -> PathBuf {
        self.directory.join(format!("{layer}-{ztoc}"))
    }

    /// The cache of a layer with a zTOC (hex digests), of `blocks` blocks.
    ///
    /// # Errors
    /// If its files cannot be opened.
    pub fn layer(&self, layer: &str, ztoc: &str, blocks: u32) -> Result<Arc<LayerCache>, CacheError> {
        let directory = self.layer_directory(layer, ztoc);
        let mut layers = lock(&self.layers);
        if let Some(open) = layers.get(&directory).and_then(Weak::upgrade) {
            return Ok(open);
        }
        self.usage.open(&directory);
        let opened = LayerCache::open(&directory, blocks, Arc::clone(&self.usage), Arc::clone(&self.disk));
        let opened = Arc::new(opened.inspect_err(|_| self.usage.close(&directory, 0))?);
        layers.insert(directory, Arc::downgrade(&opened));
        Ok(opened)
    }

    /// Removes what is cached of a layer with a zTOC (hex digests). Whoever has it open still can read what they have, but
    /// nothing of it is kept.
    pub fn discard(&self, layer: &str, ztoc: &str) {
        let directory = self.layer_directory(layer, ztoc);
        let mut layers = lock(&self.layers);
        layers.remove(&directory);
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "cannot remove from the cache");
        }
        self.usage.forget(&directory);
    }

    /// Bytes of blocks, in layers that are open and in those that are not.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.usage.bytes()
    }

    /// Bytes of blocks that are in memory only, because the disk has not taken them.
    #[must_use]
    pub fn in_memory(&self) -> u64 {
        self.disk.in_memory()
    }

    /// Whether the disk has refused what was written to it, a moment ago.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.disk.is_failing()
    }

    /// Bytes of blocks that there may be.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether there is so little room left that something has to go before more can stay.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used() >= self.target()
    }

    /// What making room leaves: a tenth less than the limit, so that it is not done for every block from then on, but
    /// not so much less that whoever does it is busy for long.
    fn target(&self) -> u64 {
        self.limit - (self.limit / 10).min(MAX_SLACK)
    }

    /// Makes room if the cache has outgrown its limit: layers that nobody has open go first, then the least
    /// recently used regions of open ones. So it does if the disk is full before that, for whoever filled it.
    pub fn trim(&self) {
        if self.disk.takes_wish_for_room() {
            evict::trim(self, self.target().min(self.used().saturating_sub(self.step())));
        } else if self.used() > self.limit {
            evict::trim(self, self.target());
        }
        if self.disk.in_memory() > 0 && !self.disk.is_failing() {
            // There is room for it again, where it can stay.
            let open: Vec<_> = lock(&self.layers).values().filter_map(Weak::upgrade).collect();
            open.iter().for_each(|layer| layer.forget_memory());
        }
    }

    /// What is evicted at once from a cache whose disk is full.
    fn step(&self) -> u64 {
        (self.used() / 10).clamp(MIN_STEP, MAX_SLACK)
    }
}

/// The regions of a layer that hold something.
#[cfg(test)]
fn layer_regions_for_tests(layer: &LayerCache) -> Vec<u32> {
    layer.regions().map(|(_, region, _)| region).collect()
}
