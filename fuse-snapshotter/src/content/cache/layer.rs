//! The cache of one layer.

use std::any::Any;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::block::{BLOCK, BLOCK_SIZE, Block};
use super::block_ranges::BlockRanges;
use super::blocks::{BlockTable, REGION, checksum, padded_checksum};
use super::disk::Disk;
use super::error::{CacheError, io_error};
use super::memory::Memory;
use super::usage::Usage;
use crate::base::lock::lock;

/// Words that are read from the disk at once.
const BATCH: usize = 64 * 1024;

/// Contents of one layer, addressed as a stream in which each file starts at a block boundary.
#[derive(Debug)]
pub struct LayerCache {
    pub(super) directory: PathBuf,
    pub(super) data: File,
    pub(super) words: File,
    pub(super) blocks: BlockTable,
    pub(super) state: Mutex<State>,
    /// Counts evictions, so that a read notices one that passed under it.
    pub(super) evictions: AtomicU64,
    pub(super) usage: Arc<Usage>,
    pub(super) disk: Arc<Disk>,
    /// Blocks that are in memory, so that nobody takes the lock to look for one where there is none.
    pub(super) in_memory: AtomicUsize,
    companion: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// What changes together with the words on disk.
#[derive(Debug)]
pub(super) struct State {
    /// Blocks that are there in part.
    pub(super) partial: HashMap<u32, Partial>,
    /// Regions that are being written, or waited for.
    pub(super) pins: HashMap<u32, Pins>,
    pub(super) memory: Memory,
}

impl State {
    /// Whether a reader waits for a block.
    pub(super) fn is_wanted(pins: &HashMap<u32, Pins>, block: u32) -> bool {
        pins.get(&(block / REGION)).is_some_and(|pins| pins.readers > 0)
    }
}

/// A block that is there in part.
#[derive(Debug, Default)]
pub(super) struct Partial {
    pub(super) ranges: BlockRanges,
    /// Its contents, if the disk has not taken all of them.
    pub(super) memory: Option<Box<Block>>,
}

/// How often a region is pinned.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pins {
    /// By those who wait for something in it.
    readers: u32,
    /// By those who write to it.
    writers: u32,
}

/// Keeps regions from being evicted. Without it an eviction could punch a hole into what a writer has written but
/// not published yet, and the writer would publish the hole.
#[derive(Debug)]
pub(crate) struct Pin {
    cache: Arc<LayerCache>,
    regions: Range<u32>,
    by_reader: bool,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = lock(&self.cache.state);
        for region in self.regions.clone() {
            if let Some(pins) = state.pins.get_mut(&region) {
                *if self.by_reader { &mut pins.readers } else { &mut pins.writers } -= 1;
                if *pins == Pins::default() {
                    state.pins.remove(&region);
                }
            }
        }
    }
}

impl LayerCache {
    pub(super) fn open(
        directory: &Path,
        count: u32,
        usage: Arc<Usage>,
        disk: Arc<Disk>,
    ) -> Result<Self, CacheError> {
        std::fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        let open = |name: &str, size: u64| {
            let path = directory.join(name);
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).read(true).write(true).open(&path);
            let file = file.map_err(io_error("open", &path))?;
            let found = file.metadata().map_err(io_error("read", &path))?.len();
            // A file of another size is of another format; it starts anew.
            if found != size {
                file.set_len(0).and_then(|()| file.set_len(size)).map_err(io_error("resize", &path))?;
            }
            Ok::<_, CacheError>((file, found == size))
        };
        let (data, intact) = open("data", u64::from(count) * BLOCK_SIZE)?;
        let (words, known) = open("blocks", u64::from(count) * 4)?;
        let blocks = BlockTable::new(count);
        let path = directory.join("blocks");
        if intact && known {
            load(&words, &blocks).map_err(io_error("read", &path))?;
        } else {
            let size = u64::from(count) * 4;
            words.set_len(0).and_then(|()| words.set_len(size)).map_err(io_error("resize", &path))?;
        }
        usage.add(blocks.present());
        Ok(Self {
            directory: directory.to_owned(),
            data,
            words,
            blocks,
            state: Mutex::new(State {
                partial: HashMap::new(),
                pins: HashMap::new(),
                memory: Memory::new(Arc::clone(&disk)),
            }),
            evictions: AtomicU64::new(0),
            usage,
            disk,
            in_memory: AtomicUsize::new(0),
            companion: OnceLock::new(),
        })
    }

    /// The directory of this layer's files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Number of blocks, present or not.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.blocks.len()
    }

    /// Whether the layer has no contents at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of blocks that are present.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.blocks.present() * BLOCK_SIZE
    }

    /// Whether a block is present, as far as known without reading it.
    #[must_use]
    pub fn has(&self, block: u32) -> bool {
        self.blocks.is_present(block) || self.is_in_memory(block)
    }

    fn is_in_memory(&self, block: u32) -> bool {
        self.in_memory.load(Ordering::Acquire) > 0 && lock(&self.state).memory.get(block).is_some()
    }

    /// Whether these bytes of a block are present although the whole block is not. No bytes always are.
    #[must_use]
    pub fn has_part(&self, block: u32, part: &Range<u16>) -> bool {
        part.is_empty() || lock(&self.state).partial.get(&block).is_some_and(|known| known.ranges.has(part))
    }

    /// What all who fill this cache have in common; made on first use. There must be only one writer of a block
    /// at a time, so whoever coordinates the writers belongs to the cache, not to one of its users.
    pub(crate) fn companion<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        let companion = self.companion.get_or_init(|| Arc::new(T::default()));
        Arc::downcast(Arc::clone(companion)).unwrap_or_default()
    }

    /// Keeps the regions of these blocks from being evicted as long as the result lives, for somebody who waits for
    /// them.
    pub(crate) fn pin(self: &Arc<Self>, blocks: Range<u32>) -> Pin {
        self.pin_for(blocks, true)
    }

    /// The same for somebody who writes them.
    pub(super) fn pin_to_write(self: &Arc<Self>, blocks: Range<u32>) -> Pin {
        self.pin_for(blocks, false)
    }

    fn pin_for(self: &Arc<Self>, blocks: Range<u32>, by_reader: bool) -> Pin {
        let end = if blocks.is_empty() { blocks.start / REGION } else { (blocks.end - 1) / REGION + 1 };
        let regions = blocks.start / REGION..end;
        let mut state = lock(&self.state);
        for region in regions.clone() {
            let pins = state.pins.entry(region).or_default();
            *if by_reader { &mut pins.readers } else { &mut pins.writers } += 1;
        }
        Pin { cache: Arc::clone(self), regions, by_reader }
    }

    /// The blocks that a range of the stream lies in; `None` if there are no such blocks.
    fn blocks_of(&self, offset: u64, length: usize) -> Option<Range<u32>> {
        let end = offset.checked_add(length as u64)?.div_ceil(BLOCK_SIZE);
        let end = u32::try_from(end).ok().filter(|end| *end <= self.len())?;
        Some((offset / BLOCK_SIZE) as u32..end)
    }

    /// Milliseconds since some moment, for the order of uses.
    fn now() -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
    }

    pub(super) fn touch(&self, range: &Range<u32>) {
        let now = Self::now();
        let mut block = range.start;
        while block < range.end {
            self.blocks.touch(block, now);
            block = (block / REGION + 1) * REGION;
        }
    }

    /// Reads at an offset of the stream if all blocks of the range are present; else returns `false`.
    ///
    /// # Errors
    /// None: a block that cannot be read, or does not have its checksum, is dropped.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        if buffer.is_empty() {
            return Ok(true);
        }
        let Some(range) = self.blocks_of(offset, buffer.len()) else { return Ok(false) };
        let evictions = self.evictions.load(Ordering::Acquire);
        if !range.clone().all(|block| self.blocks.is_present(block)) {
            return Ok(self.in_memory.load(Ordering::Acquire) > 0 && self.read_mixed(range, offset, buffer));
        }
        // Before the read: what others find to be corrupt and replace meanwhile would count as checked after it.
        let checked = range.clone().all(|block| self.blocks.is_checked(block));
        let read = self.data.read_exact_at(buffer, offset);
        let intact =
            read.and_then(|()| if checked { Ok(true) } else { self.check(range.clone(), offset, buffer) });
        match intact {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => {
                // What is fetched again then need not come from the disk.
                self.disk.lost(&self.directory, &error);
                range.for_each(|block| self.forget(block));
                return Ok(false);
            }
        }
        self.touch(&range);
        // An eviction in between may have punched a hole under the read.
        Ok(self.evictions.load(Ordering::Acquire) == evictions)
    }

    /// Reads blocks of which some are in memory.
    fn read_mixed(&self, blocks: Range<u32>, offset: u64, buffer: &mut [u8]) -> bool {
        for block in blocks {
            let start = u64::from(block) * BLOCK_SIZE;
            let from = offset.max(start);
            let to = (offset + buffer.len() as u64).min(start + BLOCK_SIZE);
            let part = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            if let Some(kept) = lock(&self.state).memory.get(block) {
                part.copy_from_slice(&kept[(from - start) as usize..(to - start) as usize]);
            } else if !self.blocks.is_present(block) || !matches!(self.read(from, part), Ok(true)) {
                return false;
            }
        }
        true
    }

    /// Checks blocks that were written before the process started, by what was just read of them: `data`, which begins
    /// at `offset`. So the first read of a block costs no more system calls than the next one.
    fn check(&self, blocks: Range<u32>, offset: u64, data: &mut [u8]) -> io::Result<bool> {
        let mut intact = true;
        for block in blocks {
            let word = self.blocks.word(block);
            let start = u64::from(block) * BLOCK_SIZE;
            let from = offset.max(start);
            let to = (offset + data.len() as u64).min(start + BLOCK_SIZE);
            let read = &mut data[(from - offset) as usize..(to - offset) as usize];
            // Behind the end of a file there are zeros, so that its last block can be checked without them.
            if from == start && padded_checksum(read) == word {
                // If it is not the file but the read that ends there, the rest has not been looked at.
                if read.len() == BLOCK {
                    self.blocks.set_checked(block);
                }
                continue;
            }
            let found = self.on_disk(block)?;
            if checksum(&found) == word {
                // What was read may be from before another reader had the block replaced.
                read.copy_from_slice(&found[(from - start) as usize..(to - start) as usize]);
                self.blocks.set_checked(block);
            } else {
                tracing::warn!(layer = %self.directory.display(), block,
                    "a cached block is corrupt; it is fetched again");
                self.forget(block);
                intact = false;
            }
        }
        Ok(intact)
    }

    /// A block as it is on the disk.
    pub(super) fn on_disk(&self, block: u32) -> io::Result<[u8; BLOCK]> {
        let mut found = [0; BLOCK];
        self.data.read_exact_at(&mut found, u64::from(block) * BLOCK_SIZE)?;
        Ok(found)
    }

    /// Removes a block, but not its space, which may be being written again already.
    fn forget(&self, block: u32) {
        let _state = lock(&self.state);
        if self.blocks.remove(block) {
            self.usage.remove(1);
            self.write_words(block, &[0; 4]);
        }
    }

    /// Writes the words of blocks from `first` on. They count in the next process only, and one that is out of date is
    /// found out by then: the block does not have it.
    pub(super) fn write_words(&self, first: u32, raw: &[u8]) {
        if let Err(error) = self.words.write_all_at(raw, u64::from(first) * 4) {
            self.disk.refused(&self.directory, &error);
        }
    }

    /// Regions that hold something: time of last use, index, and blocks present.
    pub(super) fn regions(&self) -> impl Iterator<Item = (u64, u32, u64)> {
        self.blocks.regions()
    }
}

impl Drop for LayerCache {
    fn drop(&mut self) {
        self.usage.close(&self.directory, self.blocks.present());
    }
}

/// Reads the words on disk, without the holes between them.
fn load(words: &File, blocks: &BlockTable) -> io::Result<()> {
    let size = u64::from(blocks.len()) * 4;
    let mut raw = vec![0; BATCH * 4];
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(words, SeekFrom::Data(at)) {
            // Offsets of data are multiples of a block's size, and so of 4; should they not be, begin before.
            Ok(data) => data - data % 4,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let length = usize::try_from(size.saturating_sub(at)).map_or(raw.len(), |left| left.min(raw.len()));
        words.read_exact_at(&mut raw[..length], at)?;
        let found = raw[..length].chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        blocks.load((at / 4) as u32, found);
        at += length as u64;
    }
    Ok(())
}
