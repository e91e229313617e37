//! Blocks that are kept in memory, because the disk has not taken them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::block::{BLOCK_SIZE, Block};
use super::disk::Disk;

/// Bytes of blocks in memory, of all layers together. What readers wait for is kept beyond it.
const LIMIT: u64 = 64 << 20;

/// Whole blocks of one layer, the oldest of which go first.
#[derive(Debug)]
pub(super) struct Memory {
    disk: Arc<Disk>,
    blocks: HashMap<u32, Box<Block>>,
    order: VecDeque<u32>,
}

impl Memory {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, blocks: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn get(&self, block: u32) -> Option<&Block> {
        self.blocks.get(&block).map(AsRef::as_ref)
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Keeps a block, and lets go of old ones that are not `wanted` if there are too many.
    pub(super) fn keep(&mut self, block: u32, data: Box<Block>, wanted: impl Fn(u32) -> bool) {
        if self.blocks.insert(block, data).is_none() {
            self.order.push_back(block);
            self.disk.add(BLOCK_SIZE);
        }
        // Each is looked at once at most.
        for _ in 0..self.order.len() {
            if self.disk.in_memory() <= LIMIT {
                return;
            }
            match self.order.pop_front() {
                Some(oldest) if oldest == block || wanted(oldest) => self.order.push_back(oldest),
                Some(oldest) => self.remove(oldest),
                None => return,
            }
        }
    }

    /// Lets go of the blocks that are not `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(u32) -> bool) {
        for block in std::mem::take(&mut self.order) {
            if wanted(block) {
                self.order.push_back(block);
            } else {
                self.remove(block);
            }
        }
    }

    fn remove(&mut self, block: u32) {
        if self.blocks.remove(&block).is_some() {
            self.disk.remove(BLOCK_SIZE);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.disk.remove(self.blocks.len() as u64 * BLOCK_SIZE);
    }
}
