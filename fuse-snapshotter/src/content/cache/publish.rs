//! What changes the contents of a layer's cache: bytes are written, made visible, and evicted.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::block::{BLOCK_SIZE, Block};
use super::blocks::{REGION, checksum};
use super::layer::{LayerCache, State};
use crate::base::lock::lock;

/// Blocks of which a part is in memory, of a layer: more are fetched again.
const MOST_PARTIAL: usize = 1024;

impl LayerCache {
    /// Writes data that are not valid yet. The caller must have pinned the region and must not touch blocks that
    /// are valid. Whether the disk has taken them.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> bool {
        if self.disk.is_distrusted() {
            return false;
        }
        match self.data.write_all_at(data, offset) {
            Ok(()) => self.disk.took(),
            Err(error) => {
                self.disk.refused(&self.directory, &error);
                return false;
            }
        }
        true
    }

    /// Whether a reader waits for a block, so that it is to be kept in memory if need be.
    pub(super) fn is_wanted(&self, block: u32) -> bool {
        State::is_wanted(&lock(&self.state).pins, block)
    }

    /// Makes whole blocks valid that are in memory only.
    pub(super) fn keep(&self, blocks: Vec<(u32, Box<Block>)>) {
        let mut state = lock(&self.state);
        for (block, data) in blocks {
            self.keep_locked(&mut state, block, data);
        }
    }

    fn keep_locked(&self, state: &mut State, block: u32, data: Box<Block>) {
        let State { pins, memory, .. } = state;
        if block < self.len() && !self.blocks.is_present(block) {
            memory.keep(block, data, |block| State::is_wanted(pins, block));
            self.in_memory.store(memory.len(), Ordering::Release);
        }
    }

    /// Lets go of blocks in memory that no reader waits for.
    pub(super) fn forget_memory(&self) {
        if self.in_memory.load(Ordering::Acquire) > 0 {
            let State { pins, memory, .. } = &mut *lock(&self.state);
            memory.retain(|block| State::is_wanted(pins, block));
            self.in_memory.store(memory.len(), Ordering::Release);
        }
    }

    /// Makes whole blocks valid, of which `words` has the checksums; 0 leaves a block alone.
    pub(super) fn publish(&self, first: u32, words: &[u32]) {
        let _state = lock(&self.state);
        self.publish_locked(first, words);
    }

    fn publish_locked(&self, first: u32, words: &[u32]) {
        let mut added = 0;
        for (block, word) in (first..).zip(words).filter(|(_, word)| **word != 0) {
            added += u64::from(self.blocks.publish(block, *word));
        }
        self.usage.add(added);
        // What is new is in use: it must not be the first to be evicted.
        self.touch(&(first..first.saturating_add(words.len() as u32)));
        // As they stand in the table, since blocks between may be valid already.
        let raw: Vec<u8> =
            (first..).take(words.len()).flat_map(|block| self.blocks.word(block).to_le_bytes()).collect();
        self.write_words(first, &raw);
    }

    /// Makes a part of a block valid. Once the parts cover the block's first `length` bytes, it is. `data`: its bytes,
    /// if the disk has not taken them. What cannot be read back is not made valid.
    pub(super) fn publish_part(&self, block: u32, part: Range<u16>, length: u16, data: Option<&[u8]>) {
        let mut state = lock(&self.state);
        let State { pins, partial, .. } = &mut *state;
        if data.is_some() && partial.len() > MOST_PARTIAL {
            partial.retain(|block, known| known.memory.is_none() || State::is_wanted(pins, *block));
        }
        let known = partial.entry(block).or_default();
        let within = usize::from(part.start)..usize::from(part.end);
        if data.is_some() && known.memory.is_none() {
            let Ok(before) = self.on_disk(block) else { return };
            known.memory = Some(Box::new(before));
        }
        if let Some(memory) = &mut known.memory {
            match (data, self.on_disk(block)) {
                (Some(data), _) if data.len() == within.len() => memory[within].copy_from_slice(data),
                (None, Ok(found)) => memory[within.clone()].copy_from_slice(&found[within]),
                _ => return,
            }
        }
        known.ranges.add(part);
        if !known.ranges.has(&(0..length)) {
            return;
        }
        let Some(whole) = state.partial.remove(&block) else { return };
        match (whole.memory, self.on_disk(block)) {
            (Some(memory), _) => self.keep_locked(&mut state, block, memory),
            (None, Ok(found)) => self.publish_locked(block, &[checksum(&found)]),
            (None, Err(error)) => self.disk.lost(&self.directory, &error),
        }
    }

    /// Forgets a part of a block that is about to be written anew.
    pub(super) fn retract_part(&self, block: u32, part: &Range<u16>) {
        let mut state = lock(&self.state);
        if let Some(known) = state.partial.get_mut(&block) {
            known.ranges.subtract(part);
            if known.ranges.is_empty() {
                state.partial.remove(&block);
            }
        }
    }

    /// Removes a region and gives its space back, unless it is pinned; returns whether it did.
    pub(super) fn evict(&self, region: u32) -> io::Result<bool> {
        let range = region * REGION..(region + 1).saturating_mul(REGION).min(self.len());
        // Held to the end, so that nobody writes here between the look at the pins and the hole.
        let mut state = lock(&self.state);
        if state.pins.contains_key(&region) {
            return Ok(false);
        }
        let removed = range.clone().filter(|block| self.blocks.remove(*block)).count() as u64;
        state.partial.retain(|block, _| !range.contains(block));
        // Before the hole: whoever reads from it then sees that the count has changed.
        self.evictions.fetch_add(1, Ordering::AcqRel);
        self.usage.remove(removed);
        self.write_words(range.start, &vec![0; range.len() * 4]);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (start, length) = (u64::from(range.start) * BLOCK_SIZE, range.len() as u64 * BLOCK_SIZE);
        match rustix::fs::fallocate(&self.data, flags, start, length) {
            // A file system without holes keeps the space until the block is written again.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
