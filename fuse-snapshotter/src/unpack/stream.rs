//! The uncompressed stream of a layer: buffered, counted and hashed as it is read.

use std::io::{ErrorKind, Read};

use sha2::{Digest as _, Sha256};

use super::UnpackError;

/// Files are written from this buffer without another copy.
const BUFFER: usize = 1 << 20;
/// The source is asked for this much at a time, so that what is inflated is hashed while it is in the
/// processor's cache.
const PIECE: usize = 128 * 1024;

pub(super) struct Stream<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    hasher: Sha256,
    /// Bytes read from the source.
    size: u64,
    limit: u64,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(source: R, limit: u64) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            ended: false,
            hasher: Sha256::new(),
            size: 0,
            limit,
        }
    }

    /// Bytes that were taken from the stream.
    pub(super) fn position(&self) -> u64 {
        self.size - (self.end - self.start) as u64
    }

    /// Up to `most` of the next bytes, at least one, unless the stream is at its end. As many as there are
    /// without waiting, and a full buffer if the source has that much for the asking.
    pub(super) fn chunk(&mut self, most: u64) -> Result<&[u8], UnpackError> {
        let wanted = usize::try_from(most).unwrap_or(BUFFER).min(BUFFER);
        if self.start == self.end {
            self.fill(wanted)?;
        }
        Ok(&self.buffer[self.start..self.end.min(self.start.saturating_add(wanted))])
    }

    /// Takes `length` bytes that [`Stream::chunk`] has shown.
    pub(super) fn consume(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
    }

    /// Passes over `length` bytes, or fewer if the stream ends before; returns how many.
    pub(super) fn skip(&mut self, length: u64) -> Result<u64, UnpackError> {
        let mut left = length;
        while left > 0 {
            let taken = self.chunk(left)?.len();
            if taken == 0 {
                break;
            }
            self.consume(taken);
            left -= taken as u64;
        }
        Ok(length - left)
    }

    /// Fills `block` from the stream; returns how many bytes there were if it ends before.
    pub(super) fn read(&mut self, block: &mut [u8]) -> Result<usize, UnpackError> {
        let mut filled = 0;
        while filled < block.len() {
            let chunk = self.chunk((block.len() - filled) as u64)?;
            let taken = chunk.len();
            if taken == 0 {
                break;
            }
            block[filled..filled + taken].copy_from_slice(chunk);
            self.consume(taken);
            filled += taken;
        }
        Ok(filled)
    }

    /// Reads what is left; returns the digest of the whole stream, and its size.
    pub(super) fn finish(mut self) -> Result<(String, u64), UnpackError> {
        self.skip(u64::MAX)?;
        Ok((format!("sha256:{}", hex::encode(self.hasher.finalize())), self.size))
    }

    /// Refills the empty buffer with about as much as is wanted now: for a small file the next piece, for a
    /// large one all that fits.
    fn fill(&mut self, wanted: usize) -> Result<(), UnpackError> {
        (self.start, self.end) = (0, 0);
        while !self.ended && self.end < wanted {
            let piece = (self.end + PIECE).min(self.buffer.len());
            let read = match self.source.read(&mut self.buffer[self.end..piece]) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(UnpackError::Read { uncompressed: self.size, source }),
            };
            self.ended = read == 0;
            self.hasher.update(&self.buffer[self.end..self.end + read]);
            self.end += read;
            self.size += read as u64;
            if self.size > self.limit {
                return Err(UnpackError::Limit { what: "uncompressed size", limit: self.limit });
            }
        }
        Ok(())
    }
}
