//! Prefetch artifacts: which spans of a layer are worth fetching before anybody reads them.
//!
//! ```json
//! {"version":"1.0","prefetch_spans":[{"start_span":10,"end_span":15},{"start_span":50,"end_span":55}]}
//! ```
//!
//! Ranges include both ends and speak of the spans of the layer's zTOC in the same index. An index names one artifact per
//! layer at most, after its zTOCs, with the layer's digest as the only annotation.
//!
//! Artifacts made of a recording ([`crate::recording`]) have an order: ranges stand as they were first read, and
//! `priority` counts through all layers of the image. The reference fetches what is named, in whatever order.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use registry::{Descriptor, Digest};
use serde::Deserialize;

use crate::canonical_json::Encoder;
use crate::manifest::{IndexManifest, LAYER_DIGEST, PREFETCH};
use crate::oci::DocumentError;

/// The version that is written, and the only one there is.
pub const VERSION: &str = "1.0";

/// Largest artifact that is accepted, in bytes: some 100,000 ranges, more than the largest zTOC can have with a gap between
/// any two.
pub const MAX_PREFETCH_SIZE: u64 = 4 << 20;

const WHAT: &str = "prefetch artifact";

/// Spans `start` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanRange {
    /// First span.
    pub start: u32,
    /// Last span, not before `start`.
    pub end: u32,
    /// An order through all layers of the image, lower first; 0 if there is none. The reference has the field and does
    /// not use it.
    pub priority: i64,
}

impl SpanRange {
    /// A range without a priority.
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end: end.max(start), priority: 0 }
    }

    /// How many spans it has.
    pub fn count(self) -> u64 {
        u64::from(self.end) - u64::from(self.start) + 1
    }
}

/// A prefetch artifact that is well-formed: there is a range, and each has its ends in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefetchArtifact {
    ranges: Vec<SpanRange>,
}

#[derive(Deserialize)]
struct Document {
    version: String,
    prefetch_spans: Option<Vec<RawRange>>,
}

#[derive(Deserialize)]
struct RawRange {
    start_span: i64,
    end_span: i64,
    #[serde(default)]
    priority: i64,
}

impl PrefetchArtifact {
    /// The artifact for these ranges: sorted, and joined where they overlap or touch. `None` if there are none.
    pub fn new(mut ranges: Vec<SpanRange>) -> Option<Self> {
        ranges.sort();
        let mut merged: Vec<SpanRange> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u64::from(range.start) <= u64::from(last.end) + 1 => {
                    last.end = last.end.max(range.end);
                }
                _ => merged.push(range),
            }
        }
        (!merged.is_empty()).then_some(Self { ranges: merged })
    }

    /// The artifact for these ranges as they stand, which is an order: of what several have, the first counts, and a range
    /// that goes on where the one before it ends is the same. `None` if there are none.
    pub fn in_order(ranges: impl IntoIterator<Item = SpanRange>) -> Option<Self> {
        let mut seen = Seen::default();
        let mut ordered: Vec<SpanRange> = Vec::new();
        for range in ranges {
            seen.add(range.start as usize..range.end as usize + 1, |new| {
                let (start, end) = (new.start as u32, (new.end - 1) as u32);
                match ordered.last_mut() {
                    Some(last) if u64::from(start) == u64::from(last.end) + 1 => last.end = end,
                    _ => ordered.push(SpanRange { start, end, priority: range.priority }),
                }
            });
        }
        (!ordered.is_empty()).then_some(Self { ranges: ordered })
    }

    /// Reads an artifact. It may come from anybody: whether the spans exist is for [`Self::check`] or [`Self::within`].
    ///
    /// # Errors
    /// When it is larger than [`MAX_PREFETCH_SIZE`], not JSON, of another version, empty, or a range is negative, back to
    /// front or beyond the largest span number (2^31 - 1).
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let size = json.len() as u64;
        if size > MAX_PREFETCH_SIZE {
            return Err(DocumentError::TooLarge { what: WHAT, size, limit: MAX_PREFETCH_SIZE });
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|source| DocumentError::Malformed { what: WHAT, source })?;
        if document.version != VERSION {
            let version = crate::text::excerpt(&document.version);
            return Err(DocumentError::Unexpected(format!(
                "unsupported prefetch artifact version: {version} (expected {VERSION})"
            )));
        }
        let ranges: Result<Vec<SpanRange>, DocumentError> =
            document.prefetch_spans.unwrap_or_default().iter().map(RawRange::check).collect();
        match ranges? {
            ranges if ranges.is_empty() => {
                Err(DocumentError::Unexpected("prefetch artifact is empty".into()))
            }
            ranges => Ok(Self { ranges }),
        }
    }

    /// The bytes that the reference writes for the same ranges.
    pub fn encode(&self) -> Bytes {
        let mut json = Encoder::new();
        json.object(|json| {
            json.key("version").string(VERSION);
            json.key("prefetch_spans").array(|json| {
                for range in &self.ranges {
                    json.object(|json| {
                        json.key("start_span").integer(range.start);
                        json.key("end_span").integer(range.end);
                        if range.priority != 0 {
                            json.key("priority").integer(range.priority);
                        }
                    });
                }
            });
        });
        json.into_bytes().into()
    }

    /// The ranges as they stand in the artifact.
    pub fn ranges(&self) -> &[SpanRange] {
        &self.ranges
    }

    /// Spans in all ranges; those in several count each time, as in the reference's tables.
    pub fn total_spans(&self) -> u64 {
        self.ranges.iter().map(|range| range.count()).fold(0, u64::saturating_add)
    }

    /// Checks that every span exists in a layer of `spans` spans.
    ///
    /// # Errors
    /// When one does not.
    pub fn check(&self, spans: usize) -> Result<(), DocumentError> {
        match self.ranges.iter().find(|range| range.end as usize >= spans) {
            Some(range) => Err(DocumentError::Unexpected(format!(
                "the prefetch artifact names spans {} to {} of a layer that has {spans}",
                range.start, range.end
            ))),
            None => Ok(()),
        }
    }

    /// The spans that exist in a layer of `spans` spans, in order, each once: what a reader may fetch, whatever the
    /// artifact says. The ranges exclude their end.
    pub fn within(&self, spans: usize) -> Vec<Range<usize>> {
        let merged = Self::new(self.ranges.clone()).map(|merged| merged.ranges).unwrap_or_default();
        merged
            .iter()
            .map(|range| range.start as usize..(range.end as usize).saturating_add(1).min(spans))
            .filter(|range| !range.is_empty())
            .collect()
    }
}

/// Spans that were met.
#[derive(Debug, Default)]
struct Seen {
    /// End by start; neither touching nor overlapping.
    runs: BTreeMap<usize, usize>,
}

impl Seen {
    /// Adds spans, and hands on those that are new.
    fn add(&mut self, range: Range<usize>, mut new: impl FnMut(Range<usize>)) {
        let mut whole = range.clone();
        let mut at = range.start;
        let first = self.runs.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        let met: Vec<_> = self
            .runs
            .range(first..=range.end)
            .map(|(start, end)| *start..*end)
            .filter(|run| run.end >= range.start)
            .collect();
        for run in met {
            if at < run.start.min(range.end) {
                new(at..run.start.min(range.end));
            }
            at = at.max(run.end);
            whole = whole.start.min(run.start)..whole.end.max(run.end);
            self.runs.remove(&run.start);
        }
        if at < range.end {
            new(at..range.end);
        }
        self.runs.insert(whole.start, whole.end);
    }
}

/// Puts the artifacts of an image's layers, which are given with any name for the layer, into one order: by priority, and
/// where there is none layer by layer. Each span of an artifact comes once, where it is first: an artifact of anybody may
/// name all of a layer a hundred thousand times.
pub fn interleave<L: Copy>(artifacts: &[(L, &PrefetchArtifact)]) -> Vec<(L, SpanRange)> {
    let ranges = artifacts
        .iter()
        .enumerate()
        .flat_map(|(at, (_, artifact))| artifact.ranges.iter().map(move |range| (at, *range)));
    let mut ordered: Vec<_> = ranges.collect();
    // Stable, so that what has no order keeps the one it stands in.
    ordered.sort_by_key(|(_, range)| range.priority);
    let mut named: Vec<_> = artifacts.iter().map(|(layer, _)| (*layer, Seen::default())).collect();
    let mut once = Vec::new();
    for (at, range) in ordered {
        let Some((layer, seen)) = named.get_mut(at) else { continue };
        seen.add(range.start as usize..range.end as usize + 1, |new| {
            once.push((*layer, SpanRange { start: new.start as u32, end: (new.end - 1) as u32, ..range }));
        });
    }
    once
}

/// Numbers the spans of several layers by a common order: each layer comes with the places at which spans of it were wanted.
/// The result has a layer's ranges with their priorities, for [`PrefetchArtifact::in_order`].
pub fn prioritise(layers: &[Vec<(usize, Range<usize>)>]) -> Vec<Vec<SpanRange>> {
    let mut all: Vec<_> = layers
        .iter()
        .enumerate()
        .flat_map(|(layer, places)| places.iter().map(move |(place, spans)| (*place, layer, spans)))
        .collect();
    all.sort_by_key(|(place, ..)| *place);
    let mut ranges = vec![Vec::new(); layers.len()];
    for ((_, layer, spans), priority) in all.into_iter().zip(1..) {
        let (Ok(start), Ok(end)) = (u32::try_from(spans.start), u32::try_from(spans.end)) else { continue };
        if let Some(ranges) = ranges.get_mut(layer).filter(|_| start < end) {
            ranges.push(SpanRange { start, end: end - 1, priority });
        }
    }
    ranges
}

impl RawRange {
    fn check(&self) -> Result<SpanRange, DocumentError> {
        // Span numbers are 32-bit integers in zTOCs.
        let span = |number: i64| u32::try_from(number).ok().filter(|&span| i32::try_from(span).is_ok());
        match (span(self.start_span), span(self.end_span)) {
            (Some(start), Some(end)) if start <= end => Ok(SpanRange { start, end, priority: self.priority }),
            _ => Err(DocumentError::Unexpected(format!(
                "prefetch artifact: {} to {} is no range of spans",
                self.start_span, self.end_span
            ))),
        }
    }
}

/// A prefetch artifact named by an index manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchRef<'a> {
    /// Descriptor of the artifact.
    pub descriptor: &'a Descriptor,
    /// Digest of the layer that it speaks of, checked to be a digest.
    pub layer: &'a str,
}

impl IndexManifest {
    /// Descriptor of a layer's prefetch artifact, with the annotation of an index manifest.
    pub fn prefetch_descriptor(artifact: Digest, size: u64, layer: &Digest) -> Descriptor {
        let mut descriptor = Descriptor::new(PREFETCH, artifact, size);
        descriptor.annotations.insert(LAYER_DIGEST.to_owned(), layer.to_string());
        descriptor
    }

    /// The prefetch artifacts that say which layer they belong to, in the manifest's order.
    pub fn prefetches(&self) -> impl Iterator<Item = PrefetchRef<'_>> {
        self.blobs.iter().filter(|blob| blob.media_type == PREFETCH).filter_map(|descriptor| {
            let layer = descriptor.annotations.get(LAYER_DIGEST)?;
            Some(PrefetchRef { descriptor, layer })
        })
    }

    /// The prefetch artifact of a layer. Of several, the first counts.
    pub fn prefetch_of(&self, layer: &Digest) -> Option<PrefetchRef<'_>> {
        let layer = layer.to_string();
        self.prefetches().find(|prefetch| prefetch.layer == layer)
    }
}

#[cfg(test)]
mod tests;
