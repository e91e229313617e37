//! One span on its way into the cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use ztoc::{Sha256Digest, SpanDecoder};

use super::headers::SpanHeaders;
use super::table::{ArchivePart, LayerTable};
use crate::content::cache::ContentWriter;
use crate::content::contents::LayerContents;
use crate::content::error::FetchError;

/// Room for inflated bytes, in bytes.
const OUTPUT: usize = 64 * 1024;

/// Inflated bytes after which others get their turn. A few bytes of input may stand for gigabytes, of Zstandard most of
/// all.
const TURN: usize = 4 << 20;

/// A span with the right digest, not visible yet.
pub(super) struct Verified {
    /// What was seen of tar headers.
    pub(super) headers: SpanHeaders,
    pub(super) writer: ContentWriter,
}

/// The uncompressed bytes of a span, on their way to the files that they belong to.
pub(super) struct SpanContents {
    table: Arc<LayerTable>,
    writer: ContentWriter,
    headers: SpanHeaders,
    /// Place in the archive of the next byte, and an entry not behind it.
    position: u64,
    entry: usize,
}

impl SpanContents {
    fn new(layer: &LayerContents, span: usize) -> Self {
        let table = layer.table();
        let start = table.spans().uncompressed(span).start;
        Self {
            table: Arc::clone(table),
            writer: ContentWriter::new(Arc::clone(layer.cache())),
            headers: SpanHeaders::default(),
            position: start,
            entry: table.entry_at(start),
        }
    }

    /// A span out of a verified copy of the archive.
    pub(super) fn copied(layer: &LayerContents, span: usize, archive: &File) -> io::Result<Verified> {
        let range = layer.table().spans().uncompressed(span);
        let mut contents = Self::new(layer, span);
        let mut chunk = vec![0; OUTPUT];
        while contents.position < range.end {
            let left = range.end - contents.position;
            let length = usize::try_from(left).map_or(OUTPUT, |left| left.min(OUTPUT));
            archive.read_exact_at(&mut chunk[..length], contents.position)?;
            contents.push(&chunk[..length]);
        }
        Ok(contents.verified())
    }

    /// Sends bytes where they belong.
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let part = self.table.part_at(&mut self.entry, self.position);
            let length = usize::try_from(part.length()).map_or(bytes.len(), |length| length.min(bytes.len()));
            let (now, later) = bytes.split_at(length);
            match part {
                ArchivePart::Header { entry, at, .. } => self.headers.push(&self.table, entry, at, now),
                ArchivePart::Content { entry, at, .. } => {
                    let start = self.table.stream_offset(entry);
                    self.writer.write(start + at, now, start + self.table.size(entry));
                }
                ArchivePart::Filler { .. } => {}
            }
            self.position += length as u64;
            bytes = later;
        }
    }

    /// All bytes have come, and are right.
    fn verified(self) -> Verified {
        Verified { headers: self.headers, writer: self.writer }
    }
}

/// Hashes, inflates and stores a span while its bytes arrive.
pub(super) struct SpanSink {
    table: Arc<LayerTable>,
    span: usize,
    hasher: Sha256,
    decoder: SpanDecoder,
    contents: SpanContents,
    output: Vec<u8>,
    failed: Option<String>,
}

impl SpanSink {
    pub(super) fn new(layer: &LayerContents, span: usize, ztoc: &File) -> Result<Self, FetchError> {
        let table = layer.table();
        let range = table.spans().uncompressed(span);
        let decoder = SpanDecoder::new(&table.checkpoint(span, ztoc)?, range.end - range.start)
            .map_err(std::io::Error::other)?;
        Ok(Self {
            table: Arc::clone(table),
            span,
            hasher: Sha256::new(),
            decoder,
            contents: SpanContents::new(layer, span),
            output: vec![0; OUTPUT],
            failed: None,
        })
    }

    /// Index of the span.
    pub(super) fn span(&self) -> usize {
        self.span
    }

    /// Takes the next compressed bytes.
    pub(super) async fn push(&mut self, mut input: &[u8]) {
        self.hasher.update(input);
        let mut turn = 0;
        // What cannot be inflated has a wrong digest, too: that is what is reported then.
        while self.failed.is_none() && !self.decoder.is_complete() {
            let mut output = std::mem::take(&mut self.output);
            let made = self.decoder.decode(&mut input, &mut output);
            let made = made.unwrap_or_else(|error| {
                self.failed = Some(error.to_string());
                0
            });
            self.contents.push(&output[..made]);
            self.output = output;
            if made == 0 {
                break;
            }
            turn += made;
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Why the span is not what the zTOC says; `None` if all is well.
    fn complaint(&mut self) -> Option<String> {
        let found = Sha256Digest(self.hasher.finalize_reset().into());
        if self.table.spans().digest(self.span) != Some(found) {
            return Some("span digests do not match".into());
        }
        if let Some(error) = self.failed.take() {
            return Some(error);
        }
        (!self.decoder.is_complete())
            .then(|| format!("{} bytes of output are missing", self.decoder.missing()))
    }

    /// All bytes have arrived: says what is wrong with the span if anything is.
    pub(super) fn finish(mut self) -> Result<Verified, String> {
        if let Some(complaint) = self.complaint() {
            return Err(complaint);
        }
        Ok(self.contents.verified())
    }
}
