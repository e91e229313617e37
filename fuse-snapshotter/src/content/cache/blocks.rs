//! Which blocks of a layer are in the cache.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::block::{BLOCK, Block};

/// Blocks that are evicted together: 1 MiB.
pub(super) const REGION: u32 = 256;

/// Blocks in one chunk of the table: 16 MiB of contents.
const CHUNK: u32 = 4096;

/// A block's word: 0 if absent, else its CRC-32C with the lowest bit set.
pub(super) fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c(block) | 1
}

/// The same for a block of which only the beginning is given, if the rest of it is zeros.
pub(super) fn padded_checksum(start: &[u8]) -> u32 {
    const ZEROS: Block = [0; BLOCK];
    crc32c::crc32c_append(crc32c::crc32c(start), &ZEROS[start.len().min(ZEROS.len())..]) | 1
}

/// What is known of some neighbouring blocks.
#[derive(Debug)]
struct Chunk {
    words: [AtomicU32; CHUNK as usize],
    /// A bit for each block that was checked since the process started.
    checked: [AtomicU64; CHUNK as usize / 64],
    /// When each region was used last, in milliseconds since some moment.
    used: [AtomicU64; (CHUNK / REGION) as usize],
}

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self {
            words: std::array::from_fn(|_| AtomicU32::new(0)),
            checked: std::array::from_fn(|_| AtomicU64::new(0)),
            used: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }
}

/// The words of all blocks, which of them were checked, and when they were used.
///
/// A little over 4 bytes a block, 1 MiB for a GiB of files; only for parts of the layer that hold something,
/// because it is the zTOC that says how large a layer is, and it may lie.
#[derive(Debug)]
pub(super) struct BlockTable {
    chunks: Vec<OnceLock<Box<Chunk>>>,
    count: u32,
}

impl BlockTable {
    /// A table without any block.
    pub(super) fn new(count: u32) -> Self {
        Self { chunks: (0..count.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(), count }
    }

    /// Takes over words from the disk, all of them still to be checked.
    pub(super) fn load(&self, first: u32, words: impl Iterator<Item = u32>) {
        for (block, word) in (first..self.count).zip(words).filter(|(_, word)| *word != 0) {
            self.make(block).words[(block % CHUNK) as usize].store(word, Ordering::Release);
        }
    }

    fn chunk(&self, block: u32) -> Option<&Chunk> {
        self.chunks.get((block / CHUNK) as usize)?.get().map(AsRef::as_ref)
    }

    /// The chunk of a block that exists.
    fn make(&self, block: u32) -> &Chunk {
        self.chunks[(block / CHUNK) as usize].get_or_init(Chunk::new)
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// The word of a block; 0 also for blocks that do not exist.
    pub(super) fn word(&self, block: u32) -> u32 {
        self.chunk(block).map_or(0, |chunk| chunk.words[(block % CHUNK) as usize].load(Ordering::Acquire))
    }

    pub(super) fn is_present(&self, block: u32) -> bool {
        self.word(block) != 0
    }

    pub(super) fn is_checked(&self, block: u32) -> bool {
        let bits = self
            .chunk(block)
            .map_or(0, |chunk| chunk.checked[(block % CHUNK) as usize / 64].load(Ordering::Acquire));
        bits & 1 << (block % 64) != 0
    }

    pub(super) fn set_checked(&self, block: u32) {
        if block < self.count {
            let bits = &self.make(block).checked[(block % CHUNK) as usize / 64];
            bits.fetch_or(1 << (block % 64), Ordering::AcqRel);
        }
    }

    /// Enters a block whose data were just written; returns whether it was absent.
    pub(super) fn publish(&self, block: u32, word: u32) -> bool {
        if block >= self.count {
            return false;
        }
        self.set_checked(block);
        self.make(block).words[(block % CHUNK) as usize].swap(word, Ordering::AcqRel) == 0
    }

    /// Removes a block; returns whether it was present.
    pub(super) fn remove(&self, block: u32) -> bool {
        self.chunk(block)
            .is_some_and(|chunk| chunk.words[(block % CHUNK) as usize].swap(0, Ordering::AcqRel) != 0)
    }

    /// Notes when a block was used.
    pub(super) fn touch(&self, block: u32, now: u64) {
        if let Some(chunk) = self.chunk(block) {
            let used = &chunk.used[(block % CHUNK / REGION) as usize];
            // Reading is cheaper than writing what everybody else has just written.
            if used.load(Ordering::Relaxed) != now {
                used.store(now, Ordering::Relaxed);
            }
        }
    }

    fn filled(&self) -> impl Iterator<Item = (u32, &Chunk)> {
        (0..).zip(&self.chunks).filter_map(|(index, chunk)| Some((index, chunk.get()?.as_ref())))
    }

    pub(super) fn present(&self) -> u64 {
        self.filled()
            .map(|(_, chunk)| {
                chunk.words.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count() as u64
            })
            .sum()
    }

    /// Regions that hold something: time of last use, index, and blocks present.
    pub(super) fn regions(&self) -> impl Iterator<Item = (u64, u32, u64)> {
        self.filled().flat_map(|(index, chunk)| {
            (0..).zip(chunk.words.chunks(REGION as usize)).filter_map(move |(region, words): (u32, _)| {
                let present = words.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count() as u64;
                let used = chunk.used[region as usize].load(Ordering::Relaxed);
                (present > 0).then_some((used, index * (CHUNK / REGION) + region, present))
            })
        })
    }
}
