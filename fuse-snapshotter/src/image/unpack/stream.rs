//! The uncompressed stream of a layer: counted, and hashed, as it is read.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::error::UnpackError;
use super::format::fill;

/// The uncompressed bytes of a layer, whose digest is known once all of them were taken.
///
/// Files are written from its buffer, without another copy.
pub(crate) trait Digested: BufRead {
    /// The hexadecimal SHA-256 of all bytes that were taken.
    ///
    /// # Errors
    /// If it could not be computed.
    fn digest(self) -> io::Result<String>;
}

/// Hashes what is read from another reader, on the same thread.
pub(super) struct Hashed<R> {
    source: R,
    hasher: Sha256,
}

impl<R: BufRead> Hashed<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, hasher: Sha256::new() }
    }
}

impl<R: BufRead> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        // What was shown before, which is there without reading.
        if let Ok(shown) = self.source.fill_buf() {
            self.hasher.update(&shown[..length.min(shown.len())]);
        }
        self.source.consume(length);
    }
}

impl<R: BufRead> Digested for Hashed<R> {
    fn digest(self) -> io::Result<String> {
        Ok(hex::encode(self.hasher.finalize()))
    }
}

pub(super) struct Stream<R> {
    source: R,
    /// Bytes that were taken.
    taken: u64,
    limit: u64,
}

impl<R: BufRead> Stream<R> {
    pub(super) fn new(source: R, limit: u64) -> Self {
        Self { source, taken: 0, limit }
    }

    /// Bytes that were taken from the stream.
    pub(super) fn position(&self) -> u64 {
        self.taken
    }

    /// Up to `most` of the next bytes, at least one, unless the stream is at its end. As many as there are without
    /// waiting.
    pub(super) fn chunk(&mut self, most: u64) -> Result<&[u8], UnpackError> {
        let uncompressed = self.taken;
        let shown = fill(&mut self.source).map_err(|source| UnpackError::Read { uncompressed, source })?;
        let shown = &shown[..usize::try_from(most).map_or(shown.len(), |most| most.min(shown.len()))];
        if shown.len() as u64 > self.limit.saturating_sub(uncompressed) {
            return Err(UnpackError::Limit { what: "uncompressed size", limit: self.limit });
        }
        Ok(shown)
    }

    /// Takes `length` bytes that [`Stream::chunk`] has shown.
    pub(super) fn consume(&mut self, length: usize) {
        self.source.consume(length);
        self.taken += length as u64;
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
}

impl<R: Digested> Stream<R> {
    /// Reads what is left; returns the digest of the whole stream, and its size.
    pub(super) fn finish(mut self) -> Result<(String, u64), UnpackError> {
        self.skip(u64::MAX)?;
        let uncompressed = self.taken;
        let digest = self.source.digest().map_err(|source| UnpackError::Read { uncompressed, source })?;
        Ok((format!("sha256:{digest}"), uncompressed))
    }
}
