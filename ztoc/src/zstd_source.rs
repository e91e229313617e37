//! The builder's side of Zstandard layers: where their spans begin.

use bytes::Bytes;

use super::error::BuildError;
use crate::compression::Compression;
use crate::frames::Frames;
use crate::hash::{Cut, Hasher};
use crate::spans::Mark;
use crate::tar::TarWalker;
use crate::zinfo::write_zstd_zinfo;

/// Room for output between two copies of the window to the front of the buffer, in bytes. Inflating is
/// 8 % faster with 256 KiB than with 32 KiB and no faster with more, which would leave the cache. Fuzz targets have small
/// inputs, which would never fill it.
pub(crate) const OUTPUT_SIZE: usize = if cfg!(fuzzing) { 4096 } else { 256 * 1024 };

/// Decodes the layer and notes checkpoints at data frames.
///
/// The first one is at the very start. A later frame gets one if there is as much output as a span's size since the latest.
/// Unlike with gzip it need not be more: encoders make frames of round sizes, and two of them would otherwise share a span.
/// Skippable frames never begin a span, so that what follows the last data frame (a seek table, the contents of
/// zstd:chunked) makes no span of its own.
pub(crate) struct ZstdSource {
    frames: Frames,
    buffer: Vec<u8>,
    /// Uncompressed bytes so far, over all frames.
    output: u64,
    /// Data frames that have begun.
    count: u64,
    span_size: u64,
    marks: Vec<Mark>,
    /// The first bytes of a frame's header, not hashed yet: it is not known whether a span begins with them.
    held: Vec<u8>,
}

impl ZstdSource {
    pub(crate) fn new(span_size: u64) -> Result<Self, BuildError> {
        Ok(Self {
            frames: Frames::new().map_err(|error| error.at(0))?,
            buffer: vec![0; OUTPUT_SIZE],
            output: 0,
            count: 0,
            span_size,
            marks: Vec::new(),
            held: Vec::new(),
        })
    }

    /// Decodes a chunk that starts at offset `start` of the layer, and has it hashed.
    pub(crate) fn push(
        &mut self,
        start: u64,
        chunk: Bytes,
        walker: &mut TarWalker,
        hasher: &Hasher,
    ) -> Result<(), BuildError> {
        let mut cuts = self.decode(start, &chunk, walker)?;
        let undecided = self.frames.undecided();
        if !self.held.is_empty() && undecided <= chunk.len() {
            let later = cuts.partition_point(|cut| cut.start < start);
            let later = cuts.split_off(later);
            hasher.push(std::mem::take(&mut self.held).into(), cuts)?;
            cuts = later;
        }
        let decided = chunk.len() - undecided.min(chunk.len());
        self.held.extend_from_slice(&chunk[decided..]);
        hasher.push(chunk.slice(..decided), cuts)
    }

    /// Decodes a chunk; returns the starts of spans up to its end.
    fn decode(&mut self, start: u64, chunk: &[u8], walker: &mut TarWalker) -> Result<Vec<Cut>, BuildError> {
        let mut cuts = Vec::new();
        if self.marks.is_empty() {
            self.add(0, &mut cuts);
        }
        let mut used = 0;
        loop {
            let step = self
                .frames
                .step(&chunk[used..], &mut self.buffer)
                .map_err(|error| error.at(start + used as u64))?;
            walker.push(&self.buffer[..step.produced])?;
            used += step.consumed;
            self.output += step.produced as u64;
            if let Some(header) = step.begun {
                self.count += 1;
                if self.is_due() {
                    self.add(start + used as u64 - header as u64, &mut cuts);
                }
            } else if used == chunk.len() && step.produced < self.buffer.len() {
                // The input is used up and nothing is left in the decoder.
                return Ok(cuts);
            }
        }
    }

    /// Spans so far.
    pub(crate) fn spans(&self) -> u64 {
        self.marks.len() as u64
    }

    fn is_due(&self) -> bool {
        self.marks.last().is_none_or(|latest| self.output - latest.output >= self.span_size)
    }

    /// Bytes that the decoder needs for its largest frame.
    pub(crate) fn window(&self) -> u64 {
        self.frames.memory()
    }

    fn add(&mut self, input: u64, cuts: &mut Vec<Cut>) {
        self.marks.push(Mark { input, output: self.output, bits: 0 });
        cuts.push(Cut { end: input, start: input });
    }

    pub(crate) fn finish(self, size: u64, accept_single_frame: bool) -> Result<Vec<u8>, BuildError> {
        if !self.frames.is_between() || self.count == 0 {
            return Err(BuildError::TruncatedStream { compression: Compression::Zstd, size });
        }
        if self.count == 1 && !accept_single_frame {
            return Err(BuildError::SingleFrame { size: self.output });
        }
        Ok(write_zstd_zinfo(self.span_size, &self.marks))
    }
}
