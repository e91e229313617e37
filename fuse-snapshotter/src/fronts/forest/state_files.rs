//! The state directory: files that say how much of each layer of a tree has been fetched.
//!
//! In the root of each tree there is a directory `.soci-snapshotter` that is never listed. It has a file for each
//! layer, `<digest>.json`, as with the reference, and `layers.json` with all of them, bottom first. The text of a
//! file is made when it is looked up: each look-up gives a new inode, whose bytes stay the same until the kernel
//! forgets it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::Serialize;

use super::attr::Attributes;
use super::error::FsError;
use super::inode_number::{Number, STATE_FILES, TreeSlot};
use super::tree_table::PlacedTree;
use crate::base::lock::lock;
use crate::content::LazyLayer;
use crate::content::tree::InodeKind;

/// Name of the state directory.
pub(crate) const NAME: &[u8] = b".soci-snapshotter";

/// The file about all layers.
const ALL_LAYERS: &str = "layers.json";

/// How many state files are kept for the kernel. A process that holds more of them open finds the oldest ones gone.
const MAX_FILES: usize = 1024;

/// How many bytes of state files are kept.
const MAX_BYTES: usize = 16 << 20;

/// What a state file says of a layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerState {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    digest: String,
    size: u64,
    fetched_size: u64,
    fetched_percent: f64,
}

impl LayerState {
    fn of(layer: &LazyLayer) -> Self {
        let size = layer.size();
        // Bytes that are fetched again count again.
        let fetched_size = layer.fetched_size();
        Self {
            error: layer.last_error(),
            digest: layer.digest().to_string(),
            size,
            fetched_size,
            fetched_percent: if size == 0 { 100.0 } else { fetched_size as f64 * 100.0 / size as f64 },
        }
    }
}

fn file_name(layer: &LazyLayer) -> String {
    format!("{}.json", layer.digest())
}

fn render<'l>(layers: impl Iterator<Item = &'l Arc<LazyLayer>>) -> Result<Vec<u8>, FsError> {
    let mut text = Vec::new();
    for layer in layers {
        serde_json::to_writer(&mut text, &LayerState::of(layer)).map_err(|_| FsError::Invalid)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Names in the state directory of a tree, sorted.
pub(super) fn names(placed: &PlacedTree) -> Vec<String> {
    let mut names: Vec<_> = placed.layers.iter().map(|(_, layer)| file_name(layer)).collect();
    names.push(ALL_LAYERS.to_owned());
    names.sort();
    names.dedup();
    names
}

/// Attributes of the state directory of a tree.
pub(super) fn directory(placed: &PlacedTree) -> Attributes {
    let number = Number::StateDirectory(placed.slot).encode();
    Attributes::of_our_own(number, InodeKind::Directory, 0o500, 4096).owned_by(placed.ids.as_ref())
}

#[derive(Debug)]
struct StateFile {
    tree: TreeSlot,
    attributes: Attributes,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By counter, so oldest first.
    files: BTreeMap<u64, StateFile>,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, counter: u64) {
        if let Some(file) = self.files.remove(&counter) {
            self.bytes -= file.bytes.len();
        }
    }
}

/// The state files that the kernel knows.
#[derive(Debug)]
pub(super) struct StateFiles {
    next: AtomicU64,
    kept: Mutex<Kept>,
}

impl StateFiles {
    pub(super) fn new() -> Self {
        // No number is given twice, not even after a restart: the kernel may still have bytes cached under a number
        // that an earlier process has given.
        let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let first = (time.as_secs() & u64::from(u32::MAX)) << 14;
        Self { next: AtomicU64::new(first), kept: Mutex::default() }
    }

    /// Makes a state file of a tree, with its present text.
    pub(super) fn lookup(&self, placed: &PlacedTree, name: &[u8]) -> Result<Attributes, FsError> {
        let layers = || placed.layers.iter().map(|(_, layer)| layer);
        let bytes = if name == ALL_LAYERS.as_bytes() {
            render(layers())?
        } else {
            let layer = layers().find(|layer| file_name(layer).as_bytes() == name);
            render([layer.ok_or(FsError::NotFound)?].into_iter())?
        };
        let counter = self.next.fetch_add(1, Ordering::Relaxed) % STATE_FILES;
        let number = Number::StateFile(counter).encode();
        let attributes = Attributes::of_our_own(number, InodeKind::Regular, 0o400, bytes.len() as u64)
            .owned_by(placed.ids.as_ref());
        let mut kept = lock(&self.kept);
        kept.bytes += bytes.len();
        kept.files.insert(counter, StateFile { tree: placed.slot, attributes, bytes });
        while kept.files.len() > 1 && (kept.files.len() > MAX_FILES || kept.bytes > MAX_BYTES) {
            let Some(oldest) = kept.files.keys().next().copied() else { break };
            kept.remove(oldest);
        }
        Ok(attributes)
    }

    pub(super) fn attributes(&self, counter: u64) -> Result<Attributes, FsError> {
        lock(&self.kept).files.get(&counter).map(|file| file.attributes).ok_or(FsError::Stale)
    }

    /// Copies bytes of a file to `buffer`, which is resized to what there is to read.
    pub(super) fn read(
        &self,
        counter: u64,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        let kept = lock(&self.kept);
        let bytes = &kept.files.get(&counter).ok_or(FsError::Stale)?.bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(length).min(bytes.len());
        buffer.clear();
        buffer.extend_from_slice(&bytes[start..end]);
        Ok(())
    }

    /// The kernel has forgotten a file, or was never told of it.
    pub(super) fn forget(&self, counter: u64) {
        lock(&self.kept).remove(counter);
    }

    /// Forgets all files of a tree.
    pub(super) fn forget_tree(&self, tree: TreeSlot) {
        let mut kept = lock(&self.kept);
        let gone: Vec<_> =
            kept.files.iter().filter(|(_, file)| file.tree == tree).map(|(counter, _)| *counter).collect();
        gone.into_iter().for_each(|counter| kept.remove(counter));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.kept).files.len()
    }
}
