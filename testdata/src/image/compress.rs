//! Compression of layers, the same bytes every time.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use super::frames::Frames;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all: a plain tar.
    None,
    /// One gzip member. Level 0 stores.
    Gzip(u32),
    /// Several gzip members, each of so many uncompressed bytes.
    GzipMembers {
        /// The level.
        level: u32,
        /// Uncompressed bytes per member.
        member: u64,
    },
    /// Zstandard frames.
    Zstd {
        /// The level.
        level: i32,
        /// Uncompressed bytes per frame.
        frame: u64,
        /// What else there is.
        form: ZstdForm,
    },
}

/// What a Zstandard layer has beside its data frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZstdForm {
    /// Nothing.
    Plain,
    /// A seek table at the end (zstd's seekable format).
    Seekable,
    /// Frames that begin where entries do, and at the end two skippable frames with contents and a footer (zstd:chunked).
    Chunked,
}

impl Compression {
    /// gzip at the usual level.
    pub const GZIP: Self = Self::Gzip(6);
    /// gzip with stored blocks only.
    pub const STORED: Self = Self::Gzip(0);
    /// Zstandard at the usual level, in frames of 64 KiB.
    pub const ZSTD: Self = Self::Zstd { level: 3, frame: 64 << 10, form: ZstdForm::Plain };
    /// A single Zstandard frame.
    pub const ZSTD_FRAME: Self = Self::Zstd { level: 3, frame: u64::MAX, form: ZstdForm::Plain };
    /// The seekable format, in frames of 64 KiB.
    pub const ZSTD_SEEKABLE: Self = Self::Zstd { level: 3, frame: 64 << 10, form: ZstdForm::Seekable };
    /// zstd:chunked, in chunks of 64 KiB.
    pub const ZSTD_CHUNKED: Self = Self::Zstd { level: 3, frame: 64 << 10, form: ZstdForm::Chunked };
}

/// Compresses what is written to it.
pub(super) enum Compressor<W: Write> {
    Plain(W),
    // Boxed because deflate's state is large.
    Gzip { encoder: Box<GzEncoder<W>>, level: u32, member: u64, left: u64 },
    Zstd(Box<Frames<W>>),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(compression: Compression, out: W) -> Self {
        let (level, member) = match compression {
            Compression::None => return Self::Plain(out),
            Compression::Gzip(level) => (level, u64::MAX),
            Compression::GzipMembers { level, member } => (level, member.max(1)),
            Compression::Zstd { level, frame, form } => {
                return Self::Zstd(Box::new(Frames::new(out, level, frame.max(1), form)));
            }
        };
        Self::Gzip { encoder: Box::new(encoder(out, level)), level, member, left: member }
    }

    /// Ends the stream.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip { encoder, .. } => encoder.finish(),
            Self::Zstd(frames) => frames.finish(),
        }
    }

    /// An entry begins.
    pub(super) fn entry(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(frames) => frames.entry(),
            Self::Plain(_) | Self::Gzip { .. } => Ok(()),
        }
    }

    /// Writes data, beginning new members where they are due.
    pub(super) fn push(mut self, mut data: &[u8]) -> io::Result<Self> {
        loop {
            match self {
                Self::Plain(ref mut out) => {
                    out.write_all(data)?;
                    return Ok(self);
                }
                Self::Zstd(ref mut frames) => {
                    frames.push(data)?;
                    return Ok(self);
                }
                Self::Gzip { ref mut encoder, ref mut left, .. } if data.len() as u64 <= *left => {
                    encoder.write_all(data)?;
                    *left -= data.len() as u64;
                    return Ok(self);
                }
                Self::Gzip { encoder: mut full, level, member, left } => {
                    let (now, later) = data.split_at(left as usize);
                    full.write_all(now)?;
                    let out = full.finish()?;
                    self = Self::Gzip { encoder: Box::new(encoder(out, level)), level, member, left: member };
                    data = later;
                }
            }
        }
    }
}

/// An encoder whose header has no time and no name.
fn encoder<W: Write>(out: W, level: u32) -> GzEncoder<W> {
    GzEncoder::new(out, flate2::Compression::new(level))
}
