//! Errors of building and of reading a zTOC.

use crate::compression::Compression;

/// Why a layer cannot be indexed.
///
/// All but [`BuildError::Internal`] speak of the layer, not of the machine: the same layer fails in
/// the same way everywhere, so a caller may skip it and go on with the other layers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The layer is not compressed in the way that it is said to be.
    #[error("the media type is wrong: it says {said}, but the bytes are {actual}")]
    Mislabelled {
        /// What the layer is said to be.
        said: Compression,
        /// What its first bytes show.
        actual: Compression,
    },
    /// The compressed stream is not valid (gzip or zlib, Zstandard), or its checksum is wrong.
    #[error("the {compression} stream is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// What the stream should be.
        compression: Compression,
        /// Offset in the compressed layer, in bytes.
        offset: u64,
        /// What the decoder found.
        reason: &'static str,
    },
    /// The compressed stream ends before the end of its last member or frame, or has none.
    #[error("the {compression} stream is truncated: it ends after {size} bytes, within a {}",
        if *compression == Compression::Zstd { "frame" } else { "member" })]
    TruncatedStream {
        /// What the stream should be.
        compression: Compression,
        /// Size of the compressed layer, in bytes.
        size: u64,
    },
    /// A Zstandard frame needs a dictionary, or a window of more than 128 MiB.
    #[error("unsupported zstd frame at byte {offset}: {reason}")]
    UnsupportedFrame {
        /// Offset in the compressed layer near which the frame begins, in bytes.
        offset: u64,
        /// What it needs.
        reason: &'static str,
    },
    /// The layer is a single Zstandard frame, so that reading from it means decompressing all that is before.
    #[error(
        "it is a single zstd frame of {size} uncompressed bytes and can only be read from its start; compress it in \
         many frames (as zstd:chunked does, or pzstd) to have it read lazily"
    )]
    SingleFrame {
        /// Size of the uncompressed stream, in bytes.
        size: u64,
    },
    /// The archive ends within an entry.
    #[error("the tar archive is truncated: unexpected end after {size} uncompressed bytes")]
    TruncatedArchive {
        /// Size of the uncompressed stream, in bytes.
        size: u64,
    },
    /// A tar header is malformed.
    #[error("invalid tar header at uncompressed byte {offset}: {reason}")]
    Header {
        /// Offset of the header in the uncompressed archive, in bytes.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry of a type that the format has no place for.
    #[error("unsupported input tar entry '{}'", typeflag.escape_ascii())]
    UnsupportedEntry {
        /// The type flag of the tar header.
        typeflag: u8,
    },
    /// A sparse file: its data in the archive is shorter than the file, which a zTOC cannot say.
    #[error("unsupported sparse file {name:?}")]
    Sparse {
        /// Name of the entry.
        name: String,
    },
    /// The table of contents would be larger than a zTOC can be.
    #[error("the table of contents exceeds {limit} bytes")]
    TocTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The span size is 0 or larger than a zTOC can say.
    #[error("span size {0} is out of range: it must be between 1 and 2^40 bytes")]
    SpanSize(u64),
    /// Something failed that is not the layer's fault.
    #[error("cannot build a zTOC: {0}")]
    Internal(&'static str),
}

/// Why a zTOC, or the span bytes it describes, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The FlatBuffer is malformed.
    #[error("malformed zTOC: {0}")]
    Malformed(&'static str),
    /// The table of contents contradicts itself or the archive size.
    #[error("invalid toc entry {index}: {reason}")]
    Entry {
        /// Index of the entry, in archive order.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The checkpoints contradict themselves or the archive sizes.
    #[error("invalid checkpoints: {0}")]
    Checkpoints(&'static str),
    /// The bytes of a span do not have the digest the zTOC names.
    #[error("span digests do not match: span {span}")]
    SpanDigest {
        /// Index of the span.
        span: usize,
    },
    /// A byte range lies outside the archive.
    #[error("range {start}..{end} is outside the archive of {size} bytes")]
    OutOfRange {
        /// First byte asked for.
        start: u64,
        /// End of the range (exclusive).
        end: u64,
        /// Size of the uncompressed archive.
        size: u64,
    },
    /// The compressed bytes are not what the checkpoints promise.
    #[error("cannot inflate a span: {0}")]
    Inflate(&'static str),
    /// The compressed bytes end before the wanted output is complete.
    #[error("span data is incomplete: {missing} more bytes of output expected")]
    Incomplete {
        /// Missing output, in bytes.
        missing: u64,
    },
    /// The tar header in the layer contradicts the zTOC's entry.
    #[error("tar header does not match the zTOC: {0}")]
    HeaderMismatch(&'static str),
}
