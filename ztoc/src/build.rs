//! Building a zTOC in one streaming pass over a layer.

use bytes::Bytes;

use crate::hash::{Cut, Hasher};
use crate::inflate::{Framing, Inflate, State, Stop};
use crate::spans::{Compression, Mark, WINDOW_SIZE};
use crate::tar::TarWalker;
use crate::zinfo::{GzipZinfoWriter, write_tar_zinfo};
use crate::zstd_source::ZstdSource;
use crate::{BuildError, Sha256Digest, write};

/// The span size that the reference uses by default, in uncompressed bytes: 4 MiB.
pub const DEFAULT_SPAN_SIZE: u64 = 4 << 20;

/// The tool identifier of the reference. It is part of the zTOC, so another one gives another digest.
pub const DEFAULT_BUILD_TOOL: &str = "AWS SOCI CLI v0.2";

/// Largest span size: above the size of any layer.
const MAX_SPAN_SIZE: u64 = 1 << 40;

/// Room for output between two copies of the window to the front of the buffer, in bytes. Inflating is
/// 8 % faster with 256 KiB than with 32 KiB and no faster with more, which would leave the cache. Fuzz targets have small
/// inputs, which would never fill it.
pub(crate) const OUTPUT_SIZE: usize = if cfg!(fuzzing) { 4096 } else { 256 * 1024 };

/// What a zTOC is built with.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// How the layer is compressed.
    pub compression: Compression,
    /// Least uncompressed distance between checkpoints, in bytes. Smaller spans mean less data per read and
    /// 32 KiB more zTOC each; of Zstandard layers some 100 bytes.
    pub span_size: u64,
    /// Whether a Zstandard layer that is a single frame is indexed: as one span. To fetch that for each read is no better
    /// than to fetch the layer at once, so it is for layers that are at hand.
    pub accept_single_frame: bool,
    /// Name of the building tool, stored in the zTOC.
    pub build_tool_identifier: String,
}

impl BuildOptions {
    /// The reference's defaults.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            span_size: DEFAULT_SPAN_SIZE,
            accept_single_frame: false,
            build_tool_identifier: DEFAULT_BUILD_TOOL.into(),
        }
    }
}

/// A finished zTOC.
#[derive(Debug, Clone)]
pub struct Built {
    /// The zTOC, serialised.
    pub bytes: Bytes,
    /// SHA-256 of `bytes`.
    pub digest: Sha256Digest,
    /// SHA-256 of the layer as it was pushed; compare it with the layer's descriptor.
    pub blob_digest: Sha256Digest,
    /// Size of the layer, in bytes.
    pub blob_size: u64,
    /// Number of entries.
    pub entries: usize,
    /// Number of spans.
    pub spans: usize,
    /// Whether any entry has extended attributes or is an opaque marker (`.wh..wh..opq`).
    pub has_xattrs: bool,
}

/// Builds a zTOC from the chunks of a layer.
///
/// Memory: the table of contents, 32 KiB a checkpoint of gzip, the window of a Zstandard frame (8 MiB at most by default,
/// 128 MiB at the very most), and a few chunks. Hashing runs on a thread of its own.
pub struct Builder {
    options: BuildOptions,
    hasher: Hasher,
    walker: TarWalker,
    source: Source,
    blob_size: u64,
}

enum Source {
    Gzip(Box<GzipSource>),
    Zstd(Box<ZstdSource>),
    Tar,
}

impl Builder {
    /// A builder at the start of a layer.
    ///
    /// # Errors
    /// [`BuildError::SpanSize`], or [`BuildError::Internal`] if there is no thread or memory for it.
    pub fn new(options: BuildOptions) -> Result<Self, BuildError> {
        if options.span_size == 0 || options.span_size > MAX_SPAN_SIZE {
            return Err(BuildError::SpanSize(options.span_size));
        }
        let source = match options.compression {
            Compression::Gzip => Source::Gzip(Box::new(GzipSource::new(options.span_size)?)),
            Compression::Zstd => Source::Zstd(Box::new(ZstdSource::new(options.span_size)?)),
            Compression::Uncompressed => Source::Tar,
        };
        Ok(Self { options, hasher: Hasher::spawn()?, walker: TarWalker::new(), source, blob_size: 0 })
    }

    /// Takes the next bytes of the layer. Chunks of 256 KiB to 1 MiB are best.
    ///
    /// # Errors
    /// What makes the layer impossible to index; see [`BuildError`].
    pub fn push(&mut self, chunk: Bytes) -> Result<(), BuildError> {
        if chunk.is_empty() {
            return Ok(());
        }
        let start = self.blob_size;
        let said = self.options.compression;
        if start == 0
            && let Some(actual) = said.contradicted_by(&chunk)
        {
            return Err(BuildError::Mislabelled { said, actual });
        }
        self.blob_size += chunk.len() as u64;
        let cuts = match &mut self.source {
            Source::Gzip(gzip) => gzip.push(start, &chunk, &mut self.walker)?,
            Source::Zstd(zstd) => return zstd.push(start, chunk, &mut self.walker, &self.hasher),
            Source::Tar => {
                self.walker.push(&chunk)?;
                let size = self.options.span_size;
                (start.div_ceil(size)..self.blob_size.div_ceil(size))
                    .map(|span| Cut { end: span * size, start: span * size })
                    .collect()
            }
        };
        self.hasher.push(chunk, cuts)
    }

    /// Bytes of memory that the zTOC takes so far, in parts, with what it takes to put them together, and a Zstandard
    /// frame's window: an estimate from above. Buffers and chunks come on top.
    #[must_use]
    pub fn memory(&self) -> u64 {
        // What a span takes beside its checkpoint: its digest here, as text in the zTOC, and its place.
        const SPAN: u64 = 192;
        let (zinfo, spans, window) = match &self.source {
            Source::Gzip(gzip) => (gzip.zinfo.size(), gzip.zinfo.count(), 0),
            Source::Zstd(zstd) => (0, zstd.spans(), zstd.window()),
            Source::Tar => (0, self.blob_size.div_ceil(self.options.span_size), 0),
        };
        // The parts, the zTOC, and as much again: a buffer that grows has room to spare, and entries are many small pieces.
        3 * (zinfo + self.walker.weight()) + SPAN * spans + window
    }

    /// Ends the layer and serialises the zTOC.
    ///
    /// # Errors
    /// If the layer is truncated; see [`BuildError`].
    pub fn finish(self) -> Result<Built, BuildError> {
        let compression = self.options.compression;
        let zinfo = match self.source {
            Source::Gzip(gzip) => gzip.finish(self.blob_size)?,
            Source::Zstd(zstd) => zstd.finish(self.blob_size, self.options.accept_single_frame)?,
            Source::Tar => write_tar_zinfo(self.options.span_size, self.blob_size),
        };
        let (entries, archive_size) = self.walker.finish()?;
        let digests = self.hasher.finish()?;
        let has_xattrs =
            entries.iter().any(|e| e.name.ends_with(b".wh..wh..opq") || e.xattrs().next().is_some());
        let bytes = write::serialise(&write::Contents {
            build_tool_identifier: &self.options.build_tool_identifier,
            compressed_size: self.blob_size,
            uncompressed_size: archive_size,
            entries: &entries,
            compression,
            zinfo: &zinfo,
            span_digests: &digests.spans,
        })?;
        Ok(Built {
            digest: Sha256Digest::of(&bytes),
            bytes,
            blob_digest: digests.blob,
            blob_size: self.blob_size,
            entries: entries.len(),
            spans: digests.spans.len(),
            has_xattrs,
        })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Inflates the layer and notes checkpoints at deflate block boundaries.
struct GzipSource {
    inflate: Inflate,
    /// The member is complete; if more input follows, another one begins.
    between_members: bool,
    /// The last 32 KiB of output (as far as there are any) and room for more.
    buffer: Vec<u8>,
    /// End of the output in `buffer`.
    filled: usize,
    /// Uncompressed bytes so far, over all members.
    output: u64,
    /// Value of `output` at the latest checkpoint, if there is one.
    latest: Option<u64>,
    span_size: u64,
    zinfo: GzipZinfoWriter,
}

impl GzipSource {
    fn new(span_size: u64) -> Result<Self, BuildError> {
        Ok(Self {
            inflate: Inflate::new(Framing::Auto).map_err(BuildError::Internal)?,
            between_members: false,
            buffer: vec![0; WINDOW_SIZE + OUTPUT_SIZE],
            filled: 0,
            output: 0,
            latest: None,
            span_size,
            zinfo: GzipZinfoWriter::new(span_size),
        })
    }

    /// Inflates a chunk that starts at offset `start` of the layer; returns the span boundaries in it.
    fn push(&mut self, start: u64, chunk: &[u8], walker: &mut TarWalker) -> Result<Vec<Cut>, BuildError> {
        let mut cuts = Vec::new();
        let mut used = 0;
        loop {
            if self.between_members {
                if used == chunk.len() {
                    return Ok(cuts);
                }
                self.inflate.reset(Framing::Auto).map_err(BuildError::Internal)?;
                self.between_members = false;
            }
            if self.filled == self.buffer.len() {
                self.buffer.copy_within(self.filled - WINDOW_SIZE.., 0);
                self.filled = WINDOW_SIZE;
            }
            let compression = Compression::Gzip;
            let corrupt = |reason| BuildError::Corrupt { compression, offset: start + used as u64, reason };
            let (room, stop) = self.room();
            let output = &mut self.buffer[self.filled..self.filled + room];
            let step = self.inflate.step(&chunk[used..], output, stop).map_err(corrupt)?;
            walker.push(&self.buffer[self.filled..self.filled + step.produced])?;
            used += step.consumed;
            self.filled += step.produced;
            self.output += step.produced as u64;
            match step.state {
                State::End => self.between_members = true,
                State::Boundary { bits } => {
                    let mark = Mark { input: start + used as u64, output: self.output, bits };
                    if self.is_due() {
                        self.add(mark);
                        cuts.push(Cut { end: mark.input, start: mark.start() });
                    }
                }
                // The input is used up and nothing is left in the decoder.
                State::Running if used == chunk.len() && step.produced < room => return Ok(cuts),
                State::Running => {}
            }
        }
    }

    /// How much to inflate next, and whether to stop at block boundaries. Stopping costs 8 % (the decoder saves its
    /// window each time), and no boundary within a span's size of the latest checkpoint can become one.
    fn room(&self) -> (usize, Stop) {
        let room = self.buffer.len() - self.filled;
        let uninteresting =
            self.latest.map_or(0, |latest| (latest + self.span_size).saturating_sub(self.output));
        match usize::try_from(uninteresting) {
            Ok(0) => (room, Stop::AtBlocks),
            Ok(bytes) => (room.min(bytes), Stop::Never),
            Err(_) => (room, Stop::Never),
        }
    }

    /// Whether a boundary at the current output gets a checkpoint. The reference repeats the one at output 0
    /// while there is no output, and then refuses what it wrote; a single one is enough.
    fn is_due(&self) -> bool {
        self.latest.is_none_or(|latest| self.output - latest > self.span_size)
    }

    fn add(&mut self, mark: Mark) {
        let window = self.filled.saturating_sub(WINDOW_SIZE)..self.filled;
        self.zinfo.push(mark, &self.buffer[window]);
        self.latest = Some(mark.output);
    }

    fn finish(self, size: u64) -> Result<Vec<u8>, BuildError> {
        if !self.between_members {
            return Err(BuildError::TruncatedStream { compression: Compression::Gzip, size });
        }
        Ok(self.zinfo.finish())
    }
}
