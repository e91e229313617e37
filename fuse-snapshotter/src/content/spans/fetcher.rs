//! Fetches spans of one layer, on behalf of readers and of the policies.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::partial_spans::PartialSpans;
use super::request::{SpanRequest, SpanTicket, neighbours};
use super::table::{ArchivePart, LayerTable};
use super::twin::Twins;
use super::whole_layer::WholeLayer;
use crate::base::metrics::LayerMetrics;
use crate::content::cache::BLOCK_SIZE;
use crate::content::contents::LayerContents;
use crate::content::flights::Flight;
use crate::content::link::links::Link;
use crate::content::link::priority::Priority;
use crate::content::link::sources::Sources;
use crate::content::stats::Counter;

/// What fetching spans has cost.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fetched_bytes: Counter,
    pub(crate) fetched_spans: Counter,
    pub(crate) corrupt_spans: Counter,
}

/// Fetches spans of one layer into its contents. A request for spans is made in [`stream`](super::stream).
pub(crate) struct SpanFetcher {
    contents: Arc<LayerContents>,
    /// The zTOC as stored, for the checkpoints' windows.
    ztoc: File,
    /// Of the layer as it is in the registry, in bytes.
    size: u64,
    sources: Sources,
    link: Arc<Link>,
    /// Not among what the users of a cache have in common: these hold the cache, which holds that.
    partial: PartialSpans,
    whole: WholeLayer,
    twins: Twins,
    counters: Counters,
    metrics: Arc<LayerMetrics>,
    /// The span that a reader waited for last.
    demanded: AtomicUsize,
    /// Nothing was missing when background fetch came to its end.
    complete: AtomicBool,
}

impl SpanFetcher {
    pub(crate) fn new(
        contents: Arc<LayerContents>,
        ztoc: File,
        size: u64,
        sources: Sources,
        link: Arc<Link>,
        metrics: Arc<LayerMetrics>,
    ) -> Self {
        Self {
            contents,
            ztoc,
            size,
            sources,
            link,
            partial: PartialSpans::default(),
            whole: WholeLayer::default(),
            twins: Twins::default(),
            counters: Counters::default(),
            metrics,
            demanded: AtomicUsize::new(0),
            complete: AtomicBool::new(false),
        }
    }

    pub(crate) fn contents(&self) -> &Arc<LayerContents> {
        &self.contents
    }

    pub(crate) fn table(&self) -> &Arc<LayerTable> {
        self.contents.table()
    }

    pub(super) fn ztoc(&self) -> &File {
        &self.ztoc
    }

    /// Size of the layer as it is in the registry, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where the layer can be read.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn partial(&self) -> &PartialSpans {
        &self.partial
    }

    pub(super) fn whole(&self) -> &WholeLayer {
        &self.whole
    }

    pub(crate) fn twins(&self) -> &Twins {
        &self.twins
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn metrics(&self) -> &LayerMetrics {
        &self.metrics
    }

    /// Notes that a reader waits for a span.
    pub(super) fn note_demand(&self, span: usize) {
        self.demanded.store(span, Ordering::Relaxed);
    }

    /// The span that a reader waited for last.
    pub(crate) fn demanded(&self) -> usize {
        self.demanded.load(Ordering::Relaxed)
    }

    /// Says whether nothing was missing when background fetch came to its end.
    pub(crate) fn set_complete(&self, complete: bool) {
        self.complete.store(complete, Ordering::Relaxed);
    }

    /// How much of the layer, compressed, was fetched, in bytes; all of it once it is complete. The header in front of
    /// the first span, which nobody needs, counts with the first span, so that all of the layer is all of its bytes.
    pub(crate) fn fetched_size(&self) -> u64 {
        if self.complete.load(Ordering::Relaxed) {
            return self.size;
        }
        let fetched = self.counters.fetched_bytes.get();
        let spans = self.table().spans();
        let header = if fetched > 0 && !spans.is_empty() { spans.compressed(0).start } else { 0 };
        fetched.saturating_add(header).min(self.size)
    }

    /// The spans that hold blocks, or parts of blocks, which the cache lacks.
    pub(crate) fn missing_spans(&self, entry: usize, range: &Range<u64>) -> Vec<usize> {
        let (table, contents) = (self.table(), &self.contents);
        let mut missing = Vec::new();
        let size = table.size(entry);
        let first_block = table.stream_offset(entry) / BLOCK_SIZE;
        let mut at = range.start - range.start % BLOCK_SIZE;
        while at < range.end.min(size) {
            let block = (first_block + at / BLOCK_SIZE) as u32;
            if !contents.cache().has(block) {
                let archive = table.archive_range(entry, &(at..at + BLOCK_SIZE));
                for span in table.spans().spans_of(&archive) {
                    let inside = table.spans().uncompressed(span);
                    let part = (inside.start.max(archive.start) - archive.start) as u16
                        ..(inside.end.min(archive.end) - archive.start) as u16;
                    if missing.last() != Some(&span) && !contents.has_part(block, &part) {
                        missing.push(span);
                    }
                }
            }
            at += BLOCK_SIZE;
        }
        missing.dedup();
        missing
    }

    /// Whether all contents in a span are in the cache.
    pub(crate) fn has_span(&self, span: usize) -> bool {
        let table = self.table();
        let range = table.spans().uncompressed(span);
        let mut entry = table.entry_at(range.start);
        let mut position = range.start;
        while position < range.end && entry < table.len() {
            let part = table.part_at(&mut entry, position);
            let length = part.length().min(range.end - position);
            if let ArchivePart::Content { entry, at, .. } = part
                && !self.contents.has(entry, at..at + length)
            {
                return false;
            }
            position += length;
        }
        true
    }

    /// Joins or begins the flights of some spans, in ascending order.
    pub(crate) fn join_or_start(
        &self,
        spans: Vec<usize>,
        priority: Priority,
    ) -> (Vec<Flight>, Vec<SpanTicket>) {
        let ranges = spans.iter().map(|span| self.table().spans().uncompressed(*span));
        let joined = self.contents.flights().join_or_start(ranges, priority);
        let (mut flights, mut missing) = (Vec::with_capacity(spans.len()), Vec::new());
        for (span, (flight, ticket)) in spans.into_iter().zip(joined) {
            flights.push(flight);
            match ticket {
                // Another flight may have ended since the caller saw that a span was missing.
                Some(ticket) if self.has_span(span) => ticket.complete(Ok(())),
                Some(ticket) => missing.push(SpanTicket { span, ticket }),
                None => {}
            }
        }
        (flights, missing)
    }

    /// Begins the flight of a span that nobody waits for. Without a ticket somebody else is at it, or it is there.
    pub(crate) fn start_one(&self, span: usize) -> Option<SpanTicket> {
        self.join_or_start(vec![span], Priority::Background).1.pop()
    }

    /// Fetches neighbouring spans each by a request of its own, for a reader. The last one goes on up to span `end`, or
    /// what is there, as long as no other reader comes than those until the `arrival`-th.
    pub(super) fn start(self: &Arc<Self>, tickets: Vec<SpanTicket>, end: usize, arrival: u64) {
        let Some(next) = tickets.last().map(|last| last.span + 1) else { return };
        let end = (next..end).find(|span| self.has_span(*span)).unwrap_or(end).max(next);
        let mut requests: Vec<_> = neighbours(tickets)
            .into_iter()
            .map(|tickets| SpanRequest::new(tickets, Priority::Demand))
            .collect();
        let fetch = |request| {
            let fetcher = Arc::clone(self);
            async move { fetcher.fetch(request).await }
        };
        let Some(last) = requests.pop() else { return };
        if self.link.readers_overtake() {
            // What is behind is a request of its own, which others overtake.
            let (_, behind) = self.join_or_start((next..end).collect(), Priority::Expected);
            let (last, asked) = last.announced();
            requests.push(last);
            let behind = neighbours(behind)
                .into_iter()
                .map(|tickets| fetch(SpanRequest::new(tickets, Priority::Expected)));
            let behind = futures::future::join_all(behind);
            tokio::spawn(async move {
                let _ = asked.await;
                behind.await;
            });
        } else {
            requests.push(last.going_on_to(end, arrival));
        }
        for request in requests {
            tokio::spawn(fetch(request));
        }
    }

    /// Fetches a span that may be read some time. Whether it came, or somebody else is at it: if not, it is left to the
    /// reader to insist on it.
    pub(crate) async fn try_span(&self, span: usize) -> bool {
        let Some(ticket) = self.start_one(span) else { return true };
        tracing::debug!(layer = %self.contents.digest(), span, "reading on");
        self.fetch(SpanRequest::new(vec![ticket], Priority::Speculative)).await;
        self.has_span(span)
    }

    /// Fetches all spans, those without content, too.
    #[cfg(test)]
    pub(crate) async fn fetch_all_spans(&self) {
        let spans = 0..self.table().spans().len();
        let ranges = spans.clone().map(|span| self.table().spans().uncompressed(span));
        let joined = self.contents.flights().join_or_start(ranges, Priority::Background);
        let tickets =
            spans.zip(joined).filter_map(|(span, (_, ticket))| Some(SpanTicket { span, ticket: ticket? }));
        self.fetch(SpanRequest::new(tickets.collect(), Priority::Demand)).await;
    }
}
