//! What remains of a zTOC once the tree is built: where the contents of a layer are.

use std::fs::File;
use std::hash::RandomState;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;

use ztoc::{Checkpoint, EntryKind, Spans, WINDOW_SIZE, Ztoc};

use crate::content::cache::BLOCK_SIZE;

const TAR_BLOCK: u64 = 512;

/// Longest run of header blocks of an entry, in bytes: a PAX header, a long name and a long link of 1 MiB
/// each, and their own headers. What claims more is not a tar.
const MAX_HEADER: u64 = 4 << 20;

/// Most blocks of a layer: 1 TiB of files. A limit on what a lying zTOC can cost, far above any layer.
const MAX_BLOCKS: u32 = 1 << 28;

/// Why a zTOC cannot be used to read its layer.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The zTOC claims something that no layer can be like.
    #[error("entry {entry}: {reason}")]
    Entry {
        /// Index of the entry.
        entry: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Where each file of a layer is: in the archive and in the cache's stream. 28 bytes an entry.
#[derive(Debug)]
pub struct LayerTable {
    spans: Spans,
    /// Offset of the content in the archive, by entry.
    offsets: Vec<u64>,
    sizes: Vec<u64>,
    /// First block in the cache's stream.
    blocks: Vec<u32>,
    block_count: u32,
    fingerprints: Vec<u64>,
    key: RandomState,
    /// Offset of the window of each checkpoint in the zTOC; `u64::MAX` where it needs none.
    windows: Vec<u64>,
}

/// A part of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchivePart {
    /// `length` bytes of the header of `entry`, from byte `at` of it.
    Header { entry: usize, at: u64, length: u64 },
    /// `length` bytes of the content of `entry`, from byte `at` of it.
    Content { entry: usize, at: u64, length: u64 },
    /// Padding, or what follows the last entry.
    Filler { length: u64 },
}

impl ArchivePart {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Header { length, .. } | Self::Content { length, .. } | Self::Filler { length } => *length,
        }
    }
}

impl LayerTable {
    /// The table of a zTOC.
    ///
    /// # Errors
    /// If the files would not fit into the cache's addresses, or a header is beyond all bounds.
    pub fn new(ztoc: &Ztoc) -> Result<Self, TableError> {
        let mut table = Self {
            spans: ztoc.spans().clone(),
            offsets: Vec::with_capacity(ztoc.len()),
            sizes: Vec::with_capacity(ztoc.len()),
            blocks: Vec::with_capacity(ztoc.len()),
            block_count: 0,
            fingerprints: Vec::with_capacity(ztoc.len()),
            key: RandomState::new(),
            windows: (0..ztoc.spans().len())
                .map(|span| ztoc.window_range(span).map_or(u64::MAX, |range| range.start as u64))
                .collect(),
        };
        let mut header = 0;
        for (entry, found) in ztoc.entries().enumerate() {
            let error = |reason| TableError::Entry { entry, reason };
            if found.offset - header > MAX_HEADER {
                return Err(error("its header is longer than 4 MiB"));
            }
            header = (found.offset + found.size).next_multiple_of(TAR_BLOCK);
            table.offsets.push(found.offset);
            table.sizes.push(if found.kind == EntryKind::Regular { found.size } else { 0 });
            table.blocks.push(table.block_count);
            let blocks = u32::try_from(found.size.div_ceil(BLOCK_SIZE)).ok();
            let next = blocks.and_then(|blocks| table.block_count.checked_add(blocks));
            let next = next.filter(|blocks| *blocks <= MAX_BLOCKS);
            table.block_count = next.ok_or_else(|| error("the layer is larger than 1 TiB"))?;
            if table.block_count > 0 && table.spans.is_empty() {
                return Err(error("there is no span that its content could be in"));
            }
            table.fingerprints.push(ztoc::fingerprint(&found, &table.key));
        }
        Ok(table)
    }

    /// The spans of the layer.
    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Blocks of all files together.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        self.block_count
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Size of the content of an entry, in bytes; 0 for entries that do not exist.
    #[must_use]
    pub fn size(&self, entry: usize) -> u64 {
        self.sizes.get(entry).copied().unwrap_or(0)
    }

    /// The first block of an entry's content in the cache's stream.
    pub(crate) fn first_block(&self, entry: usize) -> Option<u32> {
        self.blocks.get(entry).copied()
    }

    /// What a place in the cache's stream holds: the entry, the offset in its content, and how many bytes there are
    /// until another entry begins, padding included. `None` behind the end.
    pub(crate) fn at_stream(&self, position: u64) -> Option<(usize, u64, u64)> {
        let block = u32::try_from(position / BLOCK_SIZE).ok().filter(|block| *block < self.block_count)?;
        // Of entries that begin at one block all but the last are empty.
        let entry = self.blocks.partition_point(|first| *first <= block).checked_sub(1)?;
        let end = self.blocks.get(entry + 1).copied().unwrap_or(self.block_count);
        let start = self.stream_offset(entry);
        Some((entry, position - start, u64::from(end) * BLOCK_SIZE - position))
    }

    /// Offset of an entry's content in the cache's stream.
    pub(crate) fn stream_offset(&self, entry: usize) -> u64 {
        u64::from(self.blocks[entry]) * BLOCK_SIZE
    }

    /// The spans that hold a range of an entry's content, cut at its end; none if there is no such entry.
    pub(crate) fn spans_of(&self, entry: usize, range: &Range<u64>) -> Range<usize> {
        if entry >= self.len() || range.start >= self.size(entry) {
            return 0..0;
        }
        self.spans.spans_of(&self.archive_range(entry, range))
    }

    /// From the first to the last span of an entry that has content.
    pub(crate) fn spans_of_entry(&self, entry: usize) -> RangeInclusive<usize> {
        let content = self.archive_range(entry, &(0..u64::MAX));
        self.spans.span_of(content.start)..=self.spans.span_of(content.end.saturating_sub(1))
    }

    /// The place in the archive of a range of an entry's content, cut at its end.
    pub(crate) fn archive_range(&self, entry: usize, range: &Range<u64>) -> Range<u64> {
        let (offset, size) = (self.offsets[entry], self.sizes[entry]);
        offset + range.start.min(size)..offset + range.end.min(size)
    }

    /// End of the content of an entry with its padding, which is where the next header begins.
    fn end(&self, entry: usize) -> u64 {
        (self.offsets[entry] + self.sizes[entry]).next_multiple_of(TAR_BLOCK)
    }

    pub(crate) fn header_start(&self, entry: usize) -> u64 {
        entry.checked_sub(1).map_or(0, |previous| self.end(previous))
    }

    pub(crate) fn header_length(&self, entry: usize) -> u64 {
        self.offsets[entry] - self.header_start(entry)
    }

    /// The first entry that ends behind a place in the archive.
    pub(crate) fn entry_at(&self, position: u64) -> usize {
        // Ends ascend with the entries, but are not stored.
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.end(middle) > position { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// What stands at a place in the archive, given [`LayerTable::entry_at`] for it or an earlier place.
    pub(crate) fn part_at(&self, entry: &mut usize, position: u64) -> ArchivePart {
        while *entry < self.len() && self.end(*entry) <= position {
            *entry += 1;
        }
        let Some(offset) = self.offsets.get(*entry).copied() else {
            return ArchivePart::Filler { length: u64::MAX };
        };
        let content_end = offset + self.sizes[*entry];
        if position < offset {
            let at = position - self.header_start(*entry);
            ArchivePart::Header { entry: *entry, at, length: offset - position }
        } else if position < content_end {
            ArchivePart::Content { entry: *entry, at: position - offset, length: content_end - position }
        } else {
            ArchivePart::Filler { length: self.end(*entry) - position }
        }
    }

    /// Whether these are the header blocks that the zTOC describes.
    pub(crate) fn header_matches(&self, entry: usize, header: &[u8]) -> bool {
        ztoc::header_fingerprint(header, &self.key).is_ok_and(|found| found == self.fingerprints[entry])
    }

    /// The checkpoint of a span, with its window read from the stored zTOC.
    pub(crate) fn checkpoint(&self, span: usize, ztoc: &File) -> io::Result<Checkpoint<'static>> {
        let mut window = Vec::new();
        if self.windows[span] != u64::MAX {
            window.resize(WINDOW_SIZE, 0);
            ztoc.read_exact_at(&mut window, self.windows[span])?;
        }
        Ok(self.spans.checkpoint(span, window.into()))
    }
}
