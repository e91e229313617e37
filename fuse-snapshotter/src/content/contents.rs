//! The contents of one layer as far as they are here: its cache, where its files are in that, and what is refused.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use registry::Digest;

use super::cache::{BLOCK_SIZE, CacheRoot, ContentWriter, LayerCache, Pin};
use super::error::FetchError;
use super::flights::Flights;
use super::spans::headers::{HeaderChecks, SpanHeaders};
use super::spans::table::LayerTable;
use crate::base::lock::lock;

/// How much of what is being waited for is kept from eviction, in bytes. It makes reads from a cache that is
/// smaller than a span come to an end; more of it would make the limit meaningless.
const PINNED: u64 = 32 << 20;

/// The cache of a layer, and what is known of the files in it.
pub(crate) struct LayerContents {
    digest: Digest,
    table: Arc<LayerTable>,
    cache: Arc<LayerCache>,
    root: Arc<CacheRoot>,
    common: Arc<Common>,
}

/// What all users of one layer's cache share: a part of it has one writer at a time, and an entry that was refused once
/// is refused everywhere.
#[derive(Debug, Default)]
struct Common {
    flights: Flights,
    headers: Mutex<HeaderChecks>,
    refused: AtomicU64,
}

impl LayerContents {
    pub(super) fn new(
        digest: Digest,
        table: LayerTable,
        cache: Arc<LayerCache>,
        root: Arc<CacheRoot>,
    ) -> Self {
        let common = cache.companion::<Common>();
        {
            let mut headers = lock(&common.headers);
            if let Err(error) = headers.load(cache.directory()) {
                tracing::warn!(layer = %digest, %error, "cannot read which entries were refused before");
            }
            common.refused.store(headers.refused() as u64, Ordering::Relaxed);
        }
        Self { digest, table: Arc::new(table), cache, root, common }
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn table(&self) -> &Arc<LayerTable> {
        &self.table
    }

    pub(crate) fn cache(&self) -> &Arc<LayerCache> {
        &self.cache
    }

    pub(crate) fn directory(&self) -> &Path {
        self.cache.directory()
    }

    /// What is being fetched.
    pub(crate) fn flights(&self) -> &Flights {
        &self.common.flights
    }

    /// Entries whose tar headers contradict the zTOC.
    pub(super) fn refused(&self) -> u64 {
        self.common.refused.load(Ordering::Relaxed)
    }

    /// Whether there is so little room that something else would have to go for what is fetched.
    pub(crate) fn is_full(&self) -> bool {
        self.root.is_full()
    }

    /// Whether the cache's disk takes nothing at the moment.
    pub(crate) fn is_failing(&self) -> bool {
        self.root.is_failing()
    }

    /// Reads from an entry's content if the cache has it, else returns `None`. `buffer` must not reach beyond
    /// the content.
    pub(super) fn read(
        &self,
        entry: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<()>, FetchError> {
        if self.refused() > 0 && lock(&self.common.headers).is_refused(entry) {
            return Err(FetchError::False {
                layer: self.digest.to_string(),
                reason: format!("the tar header of entry {entry} is another one"),
            });
        }
        Ok(self.cache.read(self.table.stream_offset(entry) + offset, buffer)?.then_some(()))
    }

    /// Keeps the first [`PINNED`] bytes of a range from being evicted.
    pub(super) fn pin(&self, entry: usize, range: &Range<u64>) -> Pin {
        let start = self.table.stream_offset(entry) + range.start.min(self.table.size(entry));
        let length = range.end.min(self.table.size(entry)).saturating_sub(range.start).min(PINNED);
        self.cache.pin((start / BLOCK_SIZE) as u32..(start + length).div_ceil(BLOCK_SIZE) as u32)
    }

    /// The parts of an entry's content that the cache has, as far as they are whole blocks.
    pub(super) fn cached_ranges(&self, entry: usize) -> Vec<Range<u64>> {
        let size = self.table.size(entry);
        let first_block = self.table.stream_offset(entry) / BLOCK_SIZE;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for at in (0..size).step_by(BLOCK_SIZE as usize) {
            if self.cache.has((first_block + at / BLOCK_SIZE) as u32) {
                let end = size.min(at + BLOCK_SIZE);
                match ranges.last_mut().filter(|last| last.end == at) {
                    Some(last) => last.end = end,
                    None => ranges.push(at..end),
                }
            }
        }
        ranges
    }

    /// Whether the cache has these bytes of an entry, be it in parts of blocks.
    pub(crate) fn has(&self, entry: usize, range: Range<u64>) -> bool {
        let first_block = self.table.stream_offset(entry) / BLOCK_SIZE;
        let mut at = range.start;
        while at < range.end {
            let block = (first_block + at / BLOCK_SIZE) as u32;
            let start = at - at % BLOCK_SIZE;
            let end = range.end.min(start + BLOCK_SIZE);
            if !self.cache.has(block) && !self.has_part(block, &((at - start) as u16..(end - start) as u16)) {
                return false;
            }
            at = end;
        }
        true
    }

    /// Whether the cache has a part of a block that was not whole when the caller looked. It may have become whole
    /// since, and then it has no parts any more.
    pub(crate) fn has_part(&self, block: u32, part: &Range<u16>) -> bool {
        self.cache.has_part(block, part) || self.cache.has(block)
    }

    /// Makes verified contents visible, once the tar headers that were seen with them have been looked at: nobody is to
    /// read a file before it is refused.
    pub(crate) fn accept(&self, headers: SpanHeaders, contents: ContentWriter) {
        {
            let mut checks = lock(&self.common.headers);
            let refused = headers.finish(&self.table, &mut checks, self.directory());
            if !refused.is_empty() {
                self.common.refused.store(checks.refused() as u64, Ordering::Relaxed);
                tracing::error!(layer = %self.digest, entries = ?&refused[..refused.len().min(10)],
                    "the zTOC contradicts the tar headers of the layer; these files are refused");
            }
        }
        contents.publish();
        self.root.trim();
    }
}
