//! The directory of all layers' caches.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{FlockOperation, flock};

use super::disk::Disk;
use super::error::{CacheError, io_error};
use super::layer::LayerCache;
use super::usage::Usage;
use crate::base::lock::lock;

/// Most bytes that are evicted at once: some hundred system calls, on a thread that others wait for.
pub(super) const MAX_SLACK: u64 = 256 << 20;

/// A directory of layer caches, owned by one process.
#[derive(Debug)]
pub struct CacheRoot {
    directory: PathBuf,
    /// Bytes of blocks that all layers together may hold.
    limit: u64,
    pub(super) usage: Arc<Usage>,
    pub(super) disk: Arc<Disk>,
    pub(super) layers: Mutex<HashMap<PathBuf, Weak<LayerCache>>>,
    /// Held by whoever makes room.
    pub(super) trimming: Mutex<()>,
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

    /// Removes what is cached of a layer with a zTOC (hex digests). Whoever has it open still can read what they have,
    /// but nothing of it is kept.
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
    pub(super) fn target(&self) -> u64 {
        self.limit - (self.limit / 10).min(MAX_SLACK)
    }
}
