//! Making room in the cache.

use std::sync::Weak;
use std::time::SystemTime;

use super::{BLOCK_SIZE, CacheRoot};
use crate::base::lock::lock;

/// Evicts until there are `target` bytes.
pub(super) fn trim(root: &CacheRoot, target: u64) {
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
