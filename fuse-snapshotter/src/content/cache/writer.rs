//! Writing contents into the cache, unseen until they are verified.

use std::ops::Range;
use std::sync::Arc;

use super::block::{BLOCK, BLOCK_SIZE, Block, number_of};
use super::blocks::checksum;
use super::layer::{LayerCache, Pin};

/// Data that are written at once, in bytes; bounds the memory that a writer needs.
const BATCH: usize = 1 << 20;

/// Blocks that a writer keeps in memory though no reader waits for them, if the disk does not take them: one may
/// come.
const SPARE: usize = 4096;

/// Takes contents of neighbouring files, in order, and writes them to their places in the stream.
///
/// Nothing becomes visible before [`ContentWriter::publish`], which is called once the bytes have been verified.
/// Blocks that are visible already are never written again: bytes that are not verified yet are not to be trusted.
#[derive(Debug)]
pub struct ContentWriter {
    cache: Arc<LayerCache>,
    /// Stream offset of the first byte, once it is known.
    start: Option<u64>,
    /// Where in the stream the first and the last file end.
    first_end: u64,
    last_end: u64,
    /// Stream offset of `buffer`.
    position: u64,
    buffer: Vec<u8>,
    /// Checksums of whole blocks from the first one on; 0 for those that were not written.
    words: Vec<u32>,
    /// Blocks that were written in part, with these bytes if the disk has not taken them: at most the first and the
    /// last one.
    cut: Vec<(u32, Range<u16>, Option<Vec<u8>>)>,
    /// Whole blocks that the disk has not taken.
    kept: Vec<(u32, Box<Block>)>,
    /// Where something was written. Let go of only when it is visible, or given up.
    pins: Vec<Pin>,
}

impl ContentWriter {
    /// A writer into the cache of this layer.
    #[must_use]
    pub fn new(cache: Arc<LayerCache>) -> Self {
        Self {
            cache,
            start: None,
            first_end: 0,
            last_end: 0,
            position: 0,
            buffer: Vec::new(),
            words: Vec::new(),
            cut: Vec::new(),
            kept: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// Takes the next bytes, which stand at `offset` of the stream, of a file whose content ends at `file_end` of it.
    /// What lies between files is filled with zeros.
    pub fn write(&mut self, offset: u64, data: &[u8], file_end: u64) {
        if self.start.is_none() {
            self.start = Some(offset);
            self.position = offset;
            self.first_end = file_end;
        }
        self.last_end = file_end;
        let gap = offset.saturating_sub(self.position + self.buffer.len() as u64);
        self.buffer.resize(self.buffer.len() + usize::try_from(gap).unwrap_or(0), 0);
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= BATCH {
            let end = self.position + self.buffer.len() as u64;
            // Whole blocks only: the rest waits for what follows.
            self.flush(end - end % BLOCK_SIZE);
        }
    }

    fn first_whole(&self) -> u32 {
        number_of(self.start.unwrap_or(0).next_multiple_of(BLOCK_SIZE))
    }

    /// Writes the buffer up to `end`.
    fn flush(&mut self, end: u64) {
        let length = usize::try_from(end.saturating_sub(self.position)).unwrap_or(0).min(self.buffer.len());
        if length == 0 {
            return;
        }
        let last = self.position + length as u64 - 1;
        self.pins.push(self.cache.pin_to_write(number_of(self.position)..number_of(last) + 1));
        let mut at = 0;
        // Runs of blocks that are not visible yet.
        let mut run = 0..0;
        while at < length {
            let offset = self.position + at as u64;
            let next = length.min(at + BLOCK - (offset % BLOCK_SIZE) as usize);
            let visible = self.cache.has(number_of(offset));
            if next - at == BLOCK {
                self.words.push(if visible { 0 } else { checksum(&self.buffer[at..next]) });
            } else if !visible {
                let within = (offset % BLOCK_SIZE) as u16;
                let part = within..within + (next - at) as u16;
                // It may be valid from before; the bytes that take its place are not, yet.
                self.cache.retract_part(number_of(offset), &part);
                self.cut.push((number_of(offset), part, None));
            }
            if visible {
                self.write_run(&run);
                run = next..next;
            } else {
                run.end = next;
            }
            at = next;
        }
        self.write_run(&run);
        self.buffer.drain(..length);
        self.position += length as u64;
    }

    fn write_run(&mut self, run: &Range<usize>) {
        if !run.is_empty() && !self.cache.write(self.position + run.start as u64, &self.buffer[run.clone()]) {
            self.keep_run(run.clone());
        }
    }

    /// Keeps what the disk has not taken, as far as somebody waits for it, and a little more.
    fn keep_run(&mut self, run: Range<usize>) {
        let first_whole = self.first_whole();
        let mut at = run.start;
        while at < run.end {
            let offset = self.position + at as u64;
            let number = number_of(offset);
            let next = run.end.min(at + BLOCK - (offset % BLOCK_SIZE) as usize);
            let bytes = &self.buffer[at..next];
            if let Ok(whole) = <&Block>::try_from(bytes) {
                if let Some(word) = self.words.get_mut(number.saturating_sub(first_whole) as usize) {
                    *word = 0;
                }
                if self.kept.len() < SPARE || self.cache.is_wanted(number) {
                    self.kept.push((number, Box::new(*whole)));
                }
            } else {
                let within = (offset % BLOCK_SIZE) as u16;
                let same =
                    |(block, part, _): &&mut (u32, Range<u16>, _)| *block == number && part.start == within;
                if let Some((.., data)) = self.cut.iter_mut().rev().find(same) {
                    *data = Some(bytes.to_vec());
                }
            }
            at = next;
        }
    }

    /// Makes what was written visible. The last block may be incomplete if its file goes on.
    pub fn publish(mut self) {
        let Some(start) = self.start else { return };
        let mut end = self.position + self.buffer.len() as u64;
        if end >= self.last_end {
            end = end.next_multiple_of(BLOCK_SIZE);
            self.buffer.resize(usize::try_from(end - self.position).unwrap_or(0), 0);
        }
        self.flush(end);
        self.cache.publish(self.first_whole(), &self.words);
        self.cache.keep(std::mem::take(&mut self.kept));
        for (at, part, data) in std::mem::take(&mut self.cut) {
            let file_end = if at == number_of(start) { self.first_end } else { self.last_end };
            let length = file_end.saturating_sub(u64::from(at) * BLOCK_SIZE).min(BLOCK_SIZE) as u16;
            self.cache.publish_part(at, part, length, data.as_deref());
        }
    }
}
