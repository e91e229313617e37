//! The spans of a zTOC against the layer: each one's digest, and what its checkpoint decodes it to.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use registry::{Descriptor, Digest, DigestHasher};
use ztoc::{SpanDecoder, Ztoc};

use super::compare::MAX_PROBLEMS;
use super::report::Trouble;
use crate::source::{Check, ImageSource};

/// Room for decoded bytes.
const OUTPUT: usize = 256 << 10;
/// Chunks on their way to the thread that decodes.
const QUEUE: usize = 2;

/// Streams a layer and checks all spans of `claimed`; `actual` was built from the same layer and knows how to decode it.
///
/// An error means that the layer could not be read.
pub(super) async fn check(
    source: &dyn ImageSource,
    layer: &Descriptor,
    claimed: Arc<Ztoc>,
    actual: Arc<Ztoc>,
) -> Result<Vec<String>, Trouble> {
    let opened = source.open_blob(layer, Check::ByCaller).await;
    let mut stream = opened.map_err(|error| Trouble::of_layer(&error))?;
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(QUEUE);
    let checker = tokio::task::spawn_blocking(move || {
        let mut checker = match Checker::new(&claimed, &actual) {
            Ok(checker) => checker,
            Err(error) => return vec![error.to_string()],
        };
        while let Some(chunk) = receiver.blocking_recv() {
            checker.push(&chunk);
            if checker.problems.len() >= MAX_PROBLEMS {
                break;
            }
        }
        checker.finish()
    });
    let broke = |error: registry::Error| Trouble::of_layer(&error.into());
    while let Some(chunk) = stream.try_next().await.map_err(broke)? {
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    checker.await.map_err(|error| Trouble::Unread(error.to_string()))
}

struct Checker<'a> {
    claimed: &'a Ztoc,
    /// Decodes the whole layer from its start.
    truth: SpanDecoder,
    truth_start: u64,
    /// Of the decoded layer, cut where the claimed spans end: digests of whole pieces, and the piece in work.
    pieces: VecDeque<Digest>,
    piece: DigestHasher,
    decoded: u64,
    /// The span in work, with its bytes and what they decode to.
    span: usize,
    decoder: Option<SpanDecoder>,
    bytes: DigestHasher,
    output: DigestHasher,
    fed: u64,
    position: u64,
    last_byte: u8,
    buffer: Vec<u8>,
    problems: Vec<String>,
    cuts: usize,
}

impl<'a> Checker<'a> {
    fn new(claimed: &'a Ztoc, actual: &Ztoc) -> Result<Self, ztoc::Error> {
        if actual.spans().is_empty() {
            return Err(ztoc::Error::Checkpoints("the layer has no spans"));
        }
        Ok(Self {
            claimed,
            truth: SpanDecoder::new(&actual.checkpoint(0), actual.uncompressed_size())?,
            truth_start: actual.spans().compressed(0).start,
            pieces: VecDeque::new(),
            piece: DigestHasher::new(),
            decoded: 0,
            span: 0,
            decoder: None,
            bytes: DigestHasher::new(),
            output: DigestHasher::new(),
            fed: 0,
            position: 0,
            last_byte: 0,
            buffer: vec![0; OUTPUT],
            problems: Vec::new(),
            cuts: 0,
        })
    }

    /// Takes the next bytes of the layer.
    fn push(&mut self, chunk: &[u8]) {
        let start = self.position;
        let end = start + chunk.len() as u64;
        let skip = usize::try_from(self.truth_start.saturating_sub(start)).unwrap_or(chunk.len());
        self.decode_truth(&chunk[skip.min(chunk.len())..]);
        while self.span < self.claimed.spans().len() && self.problems.len() < MAX_PROBLEMS {
            let range = self.claimed.spans().compressed(self.span);
            if range.start >= end {
                break;
            }
            self.feed(&range, start, chunk);
            if range.end > end {
                break;
            }
            self.end_span();
        }
        self.position = end;
        self.last_byte = chunk.last().copied().unwrap_or(self.last_byte);
    }

    fn decode_truth(&mut self, mut input: &[u8]) {
        while !self.truth.is_complete() {
            let produced = match self.truth.decode(&mut input, &mut self.buffer) {
                Ok(produced) => produced,
                Err(error) => return self.problems.push(format!("the layer cannot be decoded: {error}")),
            };
            let mut from = 0;
            while self.cuts < self.claimed.spans().len() {
                let cut = self.claimed.spans().uncompressed(self.cuts).end;
                let left = usize::try_from(cut - self.decoded).unwrap_or(usize::MAX);
                if left > produced - from {
                    break;
                }
                self.piece.update(&self.buffer[from..from + left]);
                self.decoded = cut;
                from += left;
                self.pieces.push_back(std::mem::take(&mut self.piece).finish());
                self.cuts += 1;
            }
            self.piece.update(&self.buffer[from..produced]);
            self.decoded += (produced - from) as u64;
            if produced < self.buffer.len() {
                return;
            }
        }
    }

    /// Gives the part of a span that lies in a chunk to its decoder.
    fn feed(&mut self, range: &Range<u64>, start: u64, chunk: &[u8]) {
        if self.fed == 0 {
            let length = self.claimed.spans().uncompressed(self.span);
            match SpanDecoder::new(&self.claimed.checkpoint(self.span), length.end - length.start) {
                Ok(decoder) => self.decoder = Some(decoder),
                Err(error) => self.problems.push(format!("span {}: {error}", self.span)),
            }
            // It may begin with the last byte of the span before, which has gone by.
            if range.start < start {
                self.decode(&[self.last_byte]);
            }
        }
        let within = |offset: u64| {
            usize::try_from(offset.saturating_sub(start)).map_or(chunk.len(), |at| at.min(chunk.len()))
        };
        self.decode(&chunk[within(range.start)..within(range.end)]);
    }

    fn decode(&mut self, mut input: &[u8]) {
        self.fed += input.len() as u64;
        self.bytes.update(input);
        while let Some(decoder) = self.decoder.as_mut().filter(|decoder| !decoder.is_complete()) {
            match decoder.decode(&mut input, &mut self.buffer) {
                Ok(produced) => {
                    self.output.update(&self.buffer[..produced]);
                    if produced < self.buffer.len() {
                        return;
                    }
                }
                Err(error) => {
                    self.problems.push(format!("span {}: {error}", self.span));
                    self.decoder = None;
                }
            }
        }
    }

    fn end_span(&mut self) {
        let span = self.span;
        let bytes = std::mem::take(&mut self.bytes).finish();
        let output = std::mem::take(&mut self.output).finish();
        let claimed = self.claimed.spans().digest(span).map(|digest| Digest::from_sha256(&digest.0));
        if claimed.as_ref() != Some(&bytes) {
            self.problems.push(format!("span {span} has another digest in the layer"));
        }
        let complete = self.decoder.take().is_none_or(|decoder| decoder.is_complete());
        if !complete || self.pieces.pop_front() != Some(output) {
            self.problems.push(format!("checkpoint {span} decodes to something else than the layer holds"));
        }
        self.span += 1;
        self.fed = 0;
    }

    fn finish(mut self) -> Vec<String> {
        if self.span < self.claimed.spans().len() && self.problems.is_empty() {
            self.problems.push(format!("span {} lies outside the layer", self.span));
        }
        self.problems.truncate(MAX_PROBLEMS);
        self.problems
    }
}
