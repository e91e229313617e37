//! Span geometry: which bytes of the layer hold which bytes of the archive.

use std::borrow::Cow;
use std::ops::Range;

use super::compression::Compression;
use super::error::Error;
use super::hash::Sha256Digest;

/// Size of the window that a gzip checkpoint needs, in bytes: deflate's largest distance.
pub const WINDOW_SIZE: usize = 32 * 1024;

/// The start of a span: a checkpoint without its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Offset in the layer of the first whole byte after the boundary.
    pub(crate) input: u64,
    /// Uncompressed bytes before the boundary.
    pub(crate) output: u64,
    /// High-order bits of byte `input - 1` that belong to what follows the boundary.
    pub(crate) bits: u8,
}

impl Mark {
    /// The first byte of the layer that is needed to go on from here.
    pub(crate) fn start(self) -> u64 {
        self.input - u64::from(self.bits != 0)
    }

    /// The boundary in bits from the start of the layer.
    fn bit_position(self) -> u128 {
        u128::from(self.input) * 8 - u128::from(self.bits)
    }
}

/// A place where decompression can begin.
#[derive(Debug, Clone)]
pub struct Checkpoint<'a> {
    /// How what follows is compressed.
    pub compression: Compression,
    /// Bits (0 to 7) of the span's first byte that belong to it; 0 if it starts at a whole byte.
    pub bits: u8,
    /// The 32 KiB of output before the checkpoint, oldest first, padded with zeros in front; empty where
    /// there is no such output or no need for it.
    pub window: Cow<'a, [u8]>,
}

/// The spans of a layer: their places in the layer and in the archive, and their digests.
///
/// Span `i` is the run of compressed bytes from checkpoint `i` to checkpoint `i + 1`. Neighbouring spans share
/// a byte where the boundary lies within one. About 64 bytes of memory a span.
#[derive(Debug, Clone)]
pub struct Spans {
    pub(crate) compression: Compression,
    pub(crate) span_size: u64,
    pub(crate) marks: Vec<Mark>,
    pub(crate) digests: Vec<Option<Sha256Digest>>,
    pub(crate) compressed_size: u64,
    pub(crate) uncompressed_size: u64,
}

impl Spans {
    /// Checks that the spans follow each other within the layer. See the reference's checks when it resolves
    /// a layer; several checkpoints at output 0, which older reference versions wrote, are accepted.
    pub(crate) fn validate(self) -> Result<Self, Error> {
        if self.digests.len() != self.marks.len() {
            return Err(Error::Checkpoints("there is not one digest for each span"));
        }
        for pair in self.marks.windows(2) {
            if pair[1].bit_position() <= pair[0].bit_position() || pair[1].output < pair[0].output {
                return Err(Error::Checkpoints("span offsets are non-monotonic"));
            }
        }
        let holds_more =
            self.compression == Compression::Uncompressed && self.uncompressed_size > self.compressed_size;
        if holds_more || (self.marks.is_empty() && self.uncompressed_size > 0) {
            return Err(Error::Checkpoints("the archive is larger than its layer"));
        }
        if self.marks.first().is_some_and(|first| first.output != 0) {
            return Err(Error::Checkpoints("the first checkpoint is not at the start of the archive"));
        }
        if self.marks.last().is_some_and(|last| last.start() >= self.compressed_size) {
            return Err(Error::Checkpoints("a checkpoint lies outside the layer"));
        }
        Ok(self)
    }

    /// Number of spans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there is no span at all (an empty uncompressed layer).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// How the layer is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The span size that was asked for when building, in uncompressed bytes. Spans of gzip layers are larger
    /// by up to a deflate block, those of Zstandard layers by up to a frame.
    #[must_use]
    pub fn span_size(&self) -> u64 {
        self.span_size
    }

    /// Size of the layer, in bytes.
    #[must_use]
    pub fn compressed_size(&self) -> u64 {
        self.compressed_size
    }

    /// Size of the archive up to and including its end mark, in bytes.
    #[must_use]
    pub fn uncompressed_size(&self) -> u64 {
        self.uncompressed_size
    }

    /// The span that holds byte `offset` of the archive; the last span for offsets beyond its end.
    #[must_use]
    pub fn span_of(&self, offset: u64) -> usize {
        self.marks.partition_point(|mark| mark.output <= offset).saturating_sub(1)
    }

    /// The spans that hold a range of the archive; empty for an empty range.
    #[must_use]
    pub fn spans_of(&self, range: &Range<u64>) -> Range<usize> {
        if range.is_empty() || self.is_empty() {
            return 0..0;
        }
        self.span_of(range.start)..self.span_of(range.end - 1) + 1
    }

    /// The bytes of the layer that span `index` consists of.
    ///
    /// # Panics
    /// If there is no such span.
    #[must_use]
    pub fn compressed(&self, index: usize) -> Range<u64> {
        let end = self.marks.get(index + 1).map_or(self.compressed_size, |next| next.input);
        self.marks[index].start()..end
    }

    /// The bytes of the archive that span `index` inflates to. Empty where nothing but padding behind the
    /// end of the archive lies in it.
    ///
    /// # Panics
    /// If there is no such span.
    #[must_use]
    pub fn uncompressed(&self, index: usize) -> Range<u64> {
        let start = self.marks[index].output;
        let end = self.marks.get(index + 1).map_or(self.uncompressed_size, |next| next.output);
        start..end.min(self.uncompressed_size).max(start)
    }

    /// The digest of the compressed bytes of span `index`, or `None` if the zTOC's text for it is not a
    /// SHA-256 digest, so that no bytes can match it.
    #[must_use]
    pub fn digest(&self, index: usize) -> Option<Sha256Digest> {
        self.digests.get(index).copied().flatten()
    }

    /// Checks the compressed bytes of span `index`.
    ///
    /// # Errors
    /// [`Error::SpanDigest`] if the digest is another one.
    pub fn verify(&self, index: usize, bytes: &[u8]) -> Result<(), Error> {
        if self.digest(index) == Some(Sha256Digest::of(bytes)) {
            Ok(())
        } else {
            Err(Error::SpanDigest { span: index })
        }
    }

    /// Checkpoint `index` with a window that was read from [`Ztoc::window_range`](crate::Ztoc::window_range).
    ///
    /// # Panics
    /// If there is no such span.
    #[must_use]
    pub fn checkpoint<'a>(&self, index: usize, window: Cow<'a, [u8]>) -> Checkpoint<'a> {
        Checkpoint { compression: self.compression, bits: self.marks[index].bits, window }
    }
}

#[cfg(test)]
mod tests {
    use super::Compression::{Gzip, Uncompressed, Zstd};

    #[test]
    fn first_bytes_show_a_wrong_media_type_and_nothing_shows_none() {
        let mut tar = vec![0_u8; 512];
        tar[257..262].copy_from_slice(b"ustar");
        // A name may begin with anything.
        let mut odd = tar.clone();
        odd[..2].copy_from_slice(&[0x1f, 0x8b]);
        let (gzip, zstd) = ([0x1f, 0x8b, 8, 0], [0x28, 0xb5, 0x2f, 0xfd]);
        for (bytes, actual) in [(&tar[..], Uncompressed), (&odd, Uncompressed), (&gzip, Gzip), (&zstd, Zstd)]
        {
            for said in [Gzip, Uncompressed, Zstd] {
                assert_eq!(
                    said.contradicted_by(bytes),
                    (said != actual).then_some(actual),
                    "{said} {actual}"
                );
            }
        }
        for said in [Gzip, Uncompressed, Zstd] {
            assert_eq!(said.contradicted_by(b""), None);
            assert_eq!(said.contradicted_by(&[b'x'; 512]), None);
        }
    }
}
