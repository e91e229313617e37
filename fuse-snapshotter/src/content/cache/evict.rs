//! Making room in the cache.

use std::sync::Weak;
use std::time::SystemTime;

use super::block::BLOCK_SIZE;
use super::root::{CacheRoot, MAX_SLACK};
use crate::base::lock::lock;

/// Fewest bytes that are evicted at once when the disk is full: some spans.
const MIN_STEP: u64 = 8 << 20;

impl CacheRoot {
    /// Makes room if the cache has outgrown its limit: layers that nobody has open go first, then the least
    /// recently used regions of open ones. So it does if the disk is full before that, for whoever filled it.
    pub fn trim(&self) {
        if self.disk.takes_wish_for_room() {
            trim(self, self.target().min(self.used().saturating_sub(self.step())));
        } else if self.used() > self.limit() {
            trim(self, self.target());
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

/// Evicts until there are `target` bytes.
fn trim(root: &CacheRoot, target: u64) {
    // Whoever comes second would only do the same work again.
    let Ok(_single) = root.trimming.try_lock() else { return };
    remove_closed(root, target);
    let open: Vec<_> = lock(&root.layers).values().filter_map(Weak::upgrade).collect();
    let mut regions: Vec<_> = open
        .iter()
        .flat_map(|layer| layer.regions().map(move |(used, region, present)| (used, present, layer, region)))
        .collect();
    regions.sort_by_key(|(used, ..)| *used);
    for (_, present, layer, region) in regions {
        if root.used() <= target {
            return;
        }
        match layer.evict(region) {
            Ok(true) => {
                let bytes = present * BLOCK_SIZE;
                tracing::debug!(layer = %layer.directory().display(), region, bytes, "evicted");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(layer = %layer.directory().display(), %error, "cannot evict from the cache");
                return;
            }
        }
    }
}

/// Removes layers that are not open, the one unused for longest first.
fn remove_closed(root: &CacheRoot, target: u64) {
    // Held to the end, so that none of them is opened meanwhile.
    let mut layers = lock(&root.layers);
    layers.retain(|_, layer| layer.strong_count() > 0);
    let mut closed: Vec<_> = root
        .usage
        .closed()
        .into_iter()
        .map(|directory| {
            let used = std::fs::metadata(directory.join("blocks")).and_then(|m| m.modified());
            (used.unwrap_or(SystemTime::UNIX_EPOCH), directory)
        })
        .collect();
    closed.sort();
    for (_, directory) in closed {
        if root.used() <= target {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "cannot remove from the cache");
        }
        root.usage.forget(&directory);
    }
}
