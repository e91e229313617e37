//! zinfo: the checkpoints inside a zTOC, as bytes.
//!
//! For gzip (all integers little-endian): `N` int32, `span_size` int64, then `N` checkpoints of 32,785 bytes:
//! `in` int64, `out` int64, `bits` uint8, `window` 32,768 bytes. Blobs of before February 2023 lack
//! checkpoint 0, which is then at `in` 10, `out` 0; only the length tells the two apart.
//!
//! For uncompressed layers: a FlatBuffer `TarZinfo` {version int32 = 2, span_size int64, size int64}.
//!
//! For Zstandard (a format of this project, little-endian too): version int32 = 1, `N` int32, `span_size` int64, then `N`
//! checkpoints of 16 bytes: `in` int64, `out` int64.

use std::ops::Range;

use super::error::Error;
use crate::flat::Table;
use crate::spans::{Mark, WINDOW_SIZE};

const HEADER_SIZE: usize = 12;
const CHECKPOINT_SIZE: usize = 17 + WINDOW_SIZE;
const TAR_ZINFO_VERSION: i32 = 2;
const ZSTD_ZINFO_VERSION: i32 = 1;
const ZSTD_HEADER_SIZE: usize = 16;
const ZSTD_CHECKPOINT_SIZE: usize = 16;
/// Size of a gzip header without optional fields, which the legacy format assumes.
const LEGACY_FIRST_INPUT: u64 = 10;

/// Collects checkpoints in their stored form.
#[derive(Debug)]
pub(crate) struct GzipZinfoWriter {
    blob: Vec<u8>,
    marks: Vec<Mark>,
}

impl GzipZinfoWriter {
    pub(crate) fn new(span_size: u64) -> Self {
        let mut blob = vec![0; 4];
        blob.extend_from_slice(&span_size.to_le_bytes());
        Self { blob, marks: Vec::new() }
    }

    /// Adds a checkpoint; `window` is the output before it, at most 32 KiB.
    pub(crate) fn push(&mut self, mark: Mark, window: &[u8]) {
        self.blob.extend_from_slice(&mark.input.to_le_bytes());
        self.blob.extend_from_slice(&mark.output.to_le_bytes());
        self.blob.push(mark.bits);
        self.blob.resize(self.blob.len() + WINDOW_SIZE - window.len(), 0);
        self.blob.extend_from_slice(window);
        self.marks.push(mark);
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.blob.len() as u64
    }

    /// Checkpoints so far.
    pub(crate) fn count(&self) -> u64 {
        self.marks.len() as u64
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let count = u32::try_from(self.marks.len()).unwrap_or(u32::MAX);
        self.blob[..4].copy_from_slice(&count.to_le_bytes());
        self.blob
    }
}

/// The zinfo of an uncompressed layer of `size` bytes.
pub(crate) fn write_tar_zinfo(span_size: u64, size: u64) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let table = builder.start_table();
    builder.push_slot(4, TAR_ZINFO_VERSION, 0);
    builder.push_slot(6, span_size.cast_signed(), 0);
    builder.push_slot(8, size.cast_signed(), 0);
    let root = builder.end_table(table);
    builder.finish_minimal(flatbuffers::WIPOffset::<flatbuffers::TableFinishedWIPOffset>::new(root.value()));
    builder.finished_data().to_vec()
}

/// The zinfo of a Zstandard layer.
pub(crate) fn write_zstd_zinfo(span_size: u64, marks: &[Mark]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(ZSTD_HEADER_SIZE + marks.len() * ZSTD_CHECKPOINT_SIZE);
    blob.extend_from_slice(&ZSTD_ZINFO_VERSION.to_le_bytes());
    blob.extend_from_slice(&u32::try_from(marks.len()).unwrap_or(u32::MAX).to_le_bytes());
    blob.extend_from_slice(&span_size.to_le_bytes());
    for mark in marks {
        blob.extend_from_slice(&mark.input.to_le_bytes());
        blob.extend_from_slice(&mark.output.to_le_bytes());
    }
    blob
}

/// What a zinfo blob holds: where the spans begin, and where in the blob their windows are.
#[derive(Debug)]
pub(crate) struct Zinfo {
    pub(crate) span_size: u64,
    pub(crate) marks: Vec<Mark>,
    /// Offset of the first stored checkpoint's window, and how many checkpoints lack one at the front.
    windows: Windows,
}

#[derive(Debug, Clone, Copy)]
enum Windows {
    /// Uncompressed layers and Zstandard frames need none.
    None,
    /// `skipped` checkpoints at the front (0 or 1) have no stored window.
    Stored { skipped: usize },
}

impl Zinfo {
    pub(crate) fn parse_gzip(blob: &[u8]) -> Result<Self, Error> {
        let header = blob.get(..HEADER_SIZE).ok_or(Error::Checkpoints("the zinfo is too short"))?;
        let count =
            usize::try_from(i32::from_le_bytes([header[0], header[1], header[2], header[3]])).unwrap_or(0);
        if count == 0 {
            return Err(Error::Checkpoints("a gzip zinfo has at least one checkpoint"));
        }
        let span_size = number(&header[4..])?;
        // The reference multiplies in 32 bits here, which a crafted count overflows.
        let length =
            |stored: usize| stored.checked_mul(CHECKPOINT_SIZE).and_then(|n| n.checked_add(HEADER_SIZE));
        let skipped = if length(count) == Some(blob.len()) {
            0
        } else if length(count - 1) == Some(blob.len()) {
            1
        } else {
            return Err(Error::Checkpoints("the zinfo's length contradicts its number of checkpoints"));
        };
        let mut marks = Vec::with_capacity(count);
        if skipped == 1 {
            marks.push(Mark { input: LEGACY_FIRST_INPUT, output: 0, bits: 0 });
        }
        for checkpoint in blob[HEADER_SIZE..].chunks_exact(CHECKPOINT_SIZE) {
            let mark =
                Mark { input: number(checkpoint)?, output: number(&checkpoint[8..])?, bits: checkpoint[16] };
            if mark.bits > 7 || (mark.bits > 0 && mark.input == 0) {
                return Err(Error::Checkpoints("a checkpoint's bit count is out of range"));
            }
            marks.push(mark);
        }
        Ok(Self { span_size, marks, windows: Windows::Stored { skipped } })
    }

    pub(crate) fn parse_tar(blob: &[u8], compressed_size: u64, span_count: usize) -> Result<Self, Error> {
        let table = Table::root(blob)?;
        let number = |id| {
            table.i64(id).and_then(|n| u64::try_from(n).map_err(|_| Error::Checkpoints("a size is negative")))
        };
        if table.i32(0)? != TAR_ZINFO_VERSION {
            return Err(Error::Checkpoints("unknown version of the tar zinfo"));
        }
        let (span_size, size) = (number(1)?, number(2)?);
        if size != compressed_size {
            return Err(Error::Checkpoints("the tar zinfo speaks of another archive size"));
        }
        if span_size == 0 {
            return Err(Error::Checkpoints("the span size is 0"));
        }
        if size.div_ceil(span_size) != span_count as u64 {
            return Err(Error::Checkpoints("the number of spans contradicts span size and archive size"));
        }
        let marks = (0..span_count as u64)
            .map(|span| Mark { input: span * span_size, output: span * span_size, bits: 0 })
            .collect();
        Ok(Self { span_size, marks, windows: Windows::None })
    }

    pub(crate) fn parse_zstd(blob: &[u8]) -> Result<Self, Error> {
        let (header, checkpoints) = blob
            .split_first_chunk::<ZSTD_HEADER_SIZE>()
            .ok_or(Error::Checkpoints("the zinfo is too short"))?;
        let word =
            |at: usize| i32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if word(0) != ZSTD_ZINFO_VERSION {
            return Err(Error::Checkpoints("unknown version of the zstd zinfo"));
        }
        let span_size = number(&header[8..])?;
        if span_size == 0 {
            return Err(Error::Checkpoints("the span size is 0"));
        }
        let count = usize::try_from(word(4)).unwrap_or(0);
        if count == 0 {
            return Err(Error::Checkpoints("a zstd zinfo has at least one checkpoint"));
        }
        if count.checked_mul(ZSTD_CHECKPOINT_SIZE) != Some(checkpoints.len()) {
            return Err(Error::Checkpoints("the zinfo's length contradicts its number of checkpoints"));
        }
        let marks = checkpoints
            .chunks_exact(ZSTD_CHECKPOINT_SIZE)
            .map(|checkpoint| {
                Ok(Mark { input: number(checkpoint)?, output: number(&checkpoint[8..])?, bits: 0 })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { span_size, marks, windows: Windows::None })
    }

    /// Where in the zinfo blob the window of a checkpoint is; `None` where it is all zeros or not needed.
    pub(crate) fn window(&self, index: usize) -> Option<Range<usize>> {
        let Windows::Stored { skipped } = self.windows else { return None };
        let start = HEADER_SIZE + index.checked_sub(skipped)? * CHECKPOINT_SIZE + 17;
        Some(start..start + WINDOW_SIZE)
    }
}

/// A non-negative int64.
fn number(bytes: &[u8]) -> Result<u64, Error> {
    bytes
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .filter(|n| i64::try_from(*n).is_ok())
        .ok_or(Error::Checkpoints("a number is negative"))
}
