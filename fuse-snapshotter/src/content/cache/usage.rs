//! How much the cache holds, in layers that are open and in those that are not.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::BLOCK_SIZE;
use crate::base::lock::lock;

/// Bytes of all layers' blocks.
#[derive(Debug, Default)]
pub(super) struct Usage {
    bytes: AtomicU64,
    layers: Mutex<Layers>,
}

#[derive(Debug, Default)]
struct Layers {
    /// How often a layer is open. For a moment it may be twice, while the last owner's copy is being dropped.
    open: HashMap<PathBuf, usize>,
    /// Bytes of layers that are not open.
    closed: HashMap<PathBuf, u64>,
}

impl Usage {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, blocks: u64) {
        self.bytes.fetch_add(blocks * BLOCK_SIZE, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, blocks: u64) {
        self.bytes.fetch_sub(blocks * BLOCK_SIZE, Ordering::Relaxed);
    }

    /// A layer is about to be opened, and will count its own blocks from now on.
    pub(super) fn open(&self, directory: &Path) {
        let mut layers = lock(&self.layers);
        *layers.open.entry(directory.to_owned()).or_default() += 1;
        if let Some(bytes) = layers.closed.remove(directory) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// An open layer with so many blocks is gone.
    pub(super) fn close(&self, directory: &Path, blocks: u64) {
        self.remove(blocks);
        let mut layers = lock(&self.layers);
        if let Some(count) = layers.open.get_mut(directory) {
            *count -= 1;
            if *count > 0 {
                return;
            }
            layers.open.remove(directory);
        }
        // Discarded while it was open.
        if !directory.exists() {
            return;
        }
        layers.closed.insert(directory.to_owned(), blocks * BLOCK_SIZE);
        self.add(blocks);
    }

    /// A layer that was found on disk.
    pub(super) fn found(&self, directory: PathBuf, bytes: u64) {
        if lock(&self.layers).closed.insert(directory, bytes).is_none() {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Layers that are not open.
    pub(super) fn closed(&self) -> Vec<PathBuf> {
        lock(&self.layers).closed.keys().cloned().collect()
    }

    /// A layer that was not open is removed.
    pub(super) fn forget(&self, directory: &Path) {
        if let Some(bytes) = lock(&self.layers).closed.remove(directory) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
