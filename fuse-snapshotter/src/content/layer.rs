//! One layer that is read lazily.

use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use registry::{BlobReader, Digest};

use crate::base::lock::lock;
use crate::base::metrics::{LayerMetrics, Metrics};
use crate::content::FetchError;
use crate::content::cache::{BLOCK_SIZE, CacheRoot, LayerCache, Pin};
use crate::content::link::request_slots::Urgency;
use crate::content::link::schedule::{Pulling, Schedule, Schedules};
use crate::content::policy::readahead::ReadAhead;
use crate::content::policy::speculative::Likely;
use crate::content::spans::flight::{Duty, Flight, Flights};
use crate::content::spans::headers::HeaderChecks;
use crate::content::spans::partial_spans::Parked;
use crate::content::spans::request::Run;
use crate::content::spans::sink::Verified;
use crate::content::spans::table::LayerTable;
use crate::content::spans::twin::Twins;

/// How often a read looks again for blocks that were evicted, or cancelled, after they had been fetched.
const ATTEMPTS: usize = 8;

/// How much of what is being waited for is kept from eviction, in bytes. It makes reads from a cache that is
/// smaller than a span come to an end; more of it would make the limit meaningless.
const PINNED: u64 = 32 << 20;

/// What all layers of a daemon share: the cache, and who may use the link to a registry.
#[derive(Debug, Clone)]
pub struct FetchContext {
    schedules: Arc<Schedules>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) cache: Arc<CacheRoot>,
    metrics: Arc<Metrics>,
}

impl FetchContext {
    /// At most `connections` requests to a registry at a time.
    #[must_use]
    pub fn new(cache: Arc<CacheRoot>, connections: usize) -> Self {
        let schedules = Arc::new(Schedules::new(connections));
        let schedule = schedules.of("");
        Self { schedules, schedule, cache, metrics: Metrics::new() }
    }

    /// The same for layers in the registry at this host. One that does not answer keeps the readers of no other waiting.
    #[must_use]
    pub fn at(&self, host: &str) -> Self {
        Self { schedule: self.schedules.of(host), ..self.clone() }
    }

    /// Says that a layer of the registry at this host is being pulled, as long as the result lives: what a container is expected
    /// to read waits for that.
    #[must_use]
    pub fn pulling(&self, host: &str) -> Pulling {
        self.schedules.of(host).pulling()
    }

    /// The same, whose layers count in these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Where the layers count what they do.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The cache that the layers share.
    #[must_use]
    pub fn cache(&self) -> &CacheRoot {
        &self.cache
    }
}

/// What a layer has cost and given, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Compressed bytes that were fetched.
    pub fetched_bytes: u64,
    /// Spans that were fetched; a span that is fetched again counts again.
    pub fetched_spans: u64,
    /// Ranged reads.
    pub requests: u64,
    /// Spans whose digest was wrong.
    pub corrupt_spans: u64,
    /// Entries whose tar headers contradict the zTOC.
    pub refused_entries: u64,
    /// Bytes given to readers.
    pub served_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) fetched_bytes: AtomicU64,
    pub(super) fetched_spans: AtomicU64,
    pub(super) requests: Arc<AtomicU64>,
    pub(super) corrupt_spans: AtomicU64,
    served_bytes: AtomicU64,
}

/// What all users of one layer's cache share: a span has one writer at a time, and an entry that was refused once
/// is refused everywhere.
#[derive(Debug, Default)]
struct Common {
    flights: Flights,
    headers: Mutex<HeaderChecks>,
    refused: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// A layer whose contents come from the cache and, where that lacks them, from the registry.
pub struct LazyLayer {
    digest: Digest,
    table: Arc<LayerTable>,
    cache: Arc<LayerCache>,
    /// The zTOC as stored, for the checkpoints' windows.
    ztoc: File,
    shared: FetchContext,
    metrics: Arc<LayerMetrics>,
    reader: RwLock<Arc<dyn BlobReader>>,
    pub(super) whole: tokio::sync::OnceCell<()>,
    pub(super) twins: Twins,
    /// Nothing was missing when the fetch in the background came to its end.
    pub(super) complete: AtomicBool,
    /// When the whole layer was found to be wrong, and how.
    pub(super) refused_whole: Mutex<Option<(Instant, FetchError)>>,
    common: Arc<Common>,
    /// Not among what is common: these hold the cache, which holds that.
    parked: Parked,
    read_ahead: Mutex<ReadAhead>,
    likely: Mutex<Likely>,
    wanted: AtomicUsize,
    pub(super) counters: Counters,
    last_error: Mutex<Option<String>>,
}

impl std::fmt::Debug for LazyLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazyLayer").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl LazyLayer {
    /// A layer read through `reader`. `ztoc` is the file that `table` was made from.
    #[must_use]
    pub fn new(
        reader: Arc<dyn BlobReader>,
        table: LayerTable,
        cache: Arc<LayerCache>,
        ztoc: File,
        shared: FetchContext,
    ) -> Arc<Self> {
        let common = cache.companion::<Common>();
        {
            let mut headers = lock(&common.headers);
            if let Err(error) = headers.load(cache.directory()) {
                tracing::warn!(layer = %reader.digest(), %error, "cannot read which entries were refused before");
            }
            common.refused.store(headers.refused() as u64, Ordering::Relaxed);
        }
        if let Some(round_trip) = reader.round_trip() {
            // Its zTOC has come from there, so that the first spans need not be asked for to know what the link is like.
            shared.schedule.pace.begin(round_trip);
        }
        Arc::new(Self {
            digest: reader.digest().clone(),
            table: Arc::new(table),
            cache,
            ztoc,
            metrics: shared.metrics.layer(reader.digest()),
            shared,
            reader: RwLock::new(reader),
            whole: tokio::sync::OnceCell::new(),
            twins: Twins::default(),
            complete: AtomicBool::new(false),
            refused_whole: Mutex::default(),
            common,
            parked: Parked::default(),
            read_ahead: Mutex::default(),
            likely: Mutex::default(),
            wanted: AtomicUsize::new(0),
            counters: Counters::default(),
            last_error: Mutex::default(),
        })
    }

    /// Digest of the layer.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Size of the layer as it is in the registry, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.reader().size()
    }

    /// Whether both serve the same bytes for the same entry: the same layer, read with the same zTOC.
    pub(crate) fn has_same_content(&self, other: &Self) -> bool {
        self.digest == other.digest && self.directory() == other.directory()
    }

    /// What the last read that failed has failed of. It stays when later reads succeed.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        lock(&self.last_error).clone()
    }

    /// Notes why a read failed.
    fn note(&self, error: FetchError) -> FetchError {
        *lock(&self.last_error) = Some(error.to_string());
        error
    }

    /// Where it counts what it does.
    pub(crate) fn metrics(&self) -> &LayerMetrics {
        &self.metrics
    }

    /// Where its files are.
    #[must_use]
    pub fn table(&self) -> &Arc<LayerTable> {
        &self.table
    }

    pub(super) fn schedule(&self) -> &Arc<Schedule> {
        &self.shared.schedule
    }

    pub(super) fn parked(&self) -> &Parked {
        &self.parked
    }

    pub(super) fn likely(&self) -> &Mutex<Likely> {
        &self.likely
    }

    pub(super) fn cache(&self) -> &Arc<LayerCache> {
        &self.cache
    }

    pub(super) fn ztoc(&self) -> &File {
        &self.ztoc
    }

    pub(super) fn reader(&self) -> Arc<dyn BlobReader> {
        Arc::clone(&self.reader.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace_reader(&self, reader: Arc<dyn BlobReader>) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
    }

    pub(super) fn directory(&self) -> &Path {
        self.cache.directory()
    }

    /// Bytes of the layer's files that are in the cache, rounded up to blocks.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.cache.present()
    }

    /// How much of the layer, compressed, this process has fetched, in bytes; all of it once the fetch in the background has
    /// found that nothing is missing, whoever fetched it. The header in front of the first span, which nobody needs, counts
    /// with the first span, so that all of the layer is all of its bytes.
    #[must_use]
    pub fn fetched_size(&self) -> u64 {
        if self.complete.load(Ordering::Relaxed) {
            return self.size();
        }
        let fetched = self.counters.fetched_bytes.load(Ordering::Relaxed);
        let spans = self.table.spans();
        let header = if fetched > 0 && !spans.is_empty() { spans.compressed(0).start } else { 0 };
        fetched.saturating_add(header).min(self.size())
    }

    /// What the layer has cost and given.
    #[must_use]
    pub fn stats(&self) -> LayerStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LayerStats {
            fetched_bytes: get(&self.counters.fetched_bytes),
            fetched_spans: get(&self.counters.fetched_spans),
            requests: get(&self.counters.requests),
            corrupt_spans: get(&self.counters.corrupt_spans),
            refused_entries: get(&self.common.refused),
            served_bytes: get(&self.counters.served_bytes),
        }
    }

    /// Reads from an entry's content if the cache has it, else returns `None`. `buffer` must not reach beyond
    /// the content.
    ///
    /// # Errors
    /// If the disk fails, or the entry was found to be false.
    pub fn try_read(&self, entry: usize, offset: u64, buffer: &mut [u8]) -> Result<Option<()>, FetchError> {
        let found = self.peek(entry, offset, buffer).map_err(|error| self.note(error))?;
        if found.is_some() {
            count(&self.counters.served_bytes, buffer.len() as u64);
        }
        Ok(found)
    }

    /// As [`LazyLayer::try_read`], for our own use: it counts as nothing that a container has read.
    pub(crate) fn peek(
        &self,
        entry: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<()>, FetchError> {
        if self.common.refused.load(Ordering::Relaxed) > 0 && lock(&self.common.headers).is_refused(entry) {
            return Err(FetchError::False {
                layer: self.digest.to_string(),
                reason: format!("the tar header of entry {entry} is another one"),
            });
        }
        Ok(self.cache.read(self.table.stream_offset(entry) + offset, buffer)?.then_some(()))
    }

    /// Reads from an entry's content, and fetches first what the cache lacks. `buffer` must not reach beyond the
    /// content.
    ///
    /// # Errors
    /// As [`LazyLayer::try_read`] and [`LazyLayer::fill`].
    pub async fn read(
        self: &Arc<Self>,
        entry: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), FetchError> {
        let range = offset..offset + buffer.len() as u64;
        // Otherwise others could evict it between `fill` and `try_read`, again and again.
        let _pin = self.pin(entry, &range);
        for _ in 0..ATTEMPTS {
            if self.try_read(entry, offset, buffer)?.is_some() {
                return Ok(());
            }
            self.fill(entry, range.clone()).await.map_err(|error| self.note(error))?;
        }
        Err(self.note(too_small()))
    }

    /// Fetches what is missing of a range of an entry's content.
    ///
    /// # Errors
    /// If it cannot be had; see [`FetchError`].
    pub async fn fill(self: &Arc<Self>, entry: usize, range: Range<u64>) -> Result<(), FetchError> {
        let _pin = self.pin(entry, &range);
        let mut failed_before = false;
        for _ in 0..ATTEMPTS {
            let missing = self.missing_spans(entry, &range);
            let (Some(first), Some(last)) = (missing.first().copied(), missing.last().copied()) else {
                return Ok(());
            };
            tracing::debug!(layer = %self.digest, entry, offset = range.start, first, last, "a reader waits for spans");
            let (flights, duties) = self.claim(missing, Urgency::Waited);
            let unforeseen = !duties.is_empty();
            let waiting = self.shared.schedule.enter(unforeseen);
            self.wanted.store(last, Ordering::Relaxed);
            // Reading on is not waited for, but rides along in the same request.
            let end = self.read_ahead(entry, first, last + 1);
            self.launch(duties, end, waiting.arrival);
            let (mut complete, mut failed) = (true, false);
            for flight in flights {
                let joined = flight.joined;
                match flight.wait().await {
                    Ok(()) => {}
                    Err(FetchError::Cancelled) => complete = false,
                    // Somebody else's, who may have other credentials, or have begun when the registry was down.
                    Err(_) if joined && !failed_before => failed = true,
                    Err(error) => return Err(error),
                }
            }
            failed_before |= failed;
            // What was expected, or recorded, is no reason to guess.
            if unforeseen && complete && !failed {
                self.wants(entry, last, self.spans_of_entry(entry));
            }
            // Of what is longer than the pin the start may have been evicted for the end.
            if complete && !failed && range.end.saturating_sub(range.start) > PINNED {
                return Ok(());
            }
        }
        Err(too_small())
    }

    /// Keeps the first [`PINNED`] bytes of a range from being evicted.
    fn pin(&self, entry: usize, range: &Range<u64>) -> Pin {
        let start = self.table.stream_offset(entry) + range.start.min(self.table.size(entry));
        let length = range.end.min(self.table.size(entry)).saturating_sub(range.start).min(PINNED);
        self.cache.pin((start / BLOCK_SIZE) as u32..(start + length).div_ceil(BLOCK_SIZE) as u32)
    }

    fn read_ahead(&self, entry: usize, first: usize, end: usize) -> usize {
        if self.shared.schedule.is_expecting() {
            // The link has better things to do.
            return end;
        }
        let all = self.spans_of_entry(entry);
        let long = self.shared.schedule.pace.piece().is_some();
        lock(&self.read_ahead).extend(entry, first, end, &all, self.table.spans().len(), long)
    }

    /// From the first to the last span of an entry that has content.
    fn spans_of_entry(&self, entry: usize) -> RangeInclusive<usize> {
        let content = self.table.archive_range(entry, &(0..u64::MAX));
        let spans = self.table.spans();
        spans.span_of(content.start)..=spans.span_of(content.end.saturating_sub(1))
    }

    /// The span that a reader wanted last.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// The parts of an entry's content that the cache has, as far as they are whole blocks.
    pub(crate) fn cached_ranges(&self, entry: usize) -> Vec<Range<u64>> {
        let size = self.table.size(entry);
        let first_block = self.table.stream_offset(entry) / BLOCK_SIZE;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for at in (0..size).step_by(BLOCK_SIZE as usize) {
            if self.cache.has((first_block + at / BLOCK_SIZE) as u32) {
                let end = size.min(at + BLOCK_SIZE);
                match ranges.last_mut().filter(|last| last.end == at) {
                    Some(last) => last.end = end,
                    None => ranges.push(at..end),
                }
            }
        }
        ranges
    }

    /// The spans that hold blocks, or parts of blocks, which the cache lacks.
    pub(super) fn missing_spans(&self, entry: usize, range: &Range<u64>) -> Vec<usize> {
        let mut missing = Vec::new();
        let size = self.table.size(entry);
        let first_block = self.table.stream_offset(entry) / BLOCK_SIZE;
        let mut at = range.start - range.start % BLOCK_SIZE;
        while at < range.end.min(size) {
            let block = (first_block + at / BLOCK_SIZE) as u32;
            if !self.cache.has(block) {
                let archive = self.table.archive_range(entry, &(at..at + BLOCK_SIZE));
                for span in self.table.spans().spans_of(&archive) {
                    let inside = self.table.spans().uncompressed(span);
                    let part = (inside.start.max(archive.start) - archive.start) as u16
                        ..(inside.end.min(archive.end) - archive.start) as u16;
                    if missing.last() != Some(&span) && !self.has_part(block, &part) {
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
    pub(super) fn has_span(&self, span: usize) -> bool {
        let range = self.table.spans().uncompressed(span);
        let mut entry = self.table.entry_at(range.start);
        let mut position = range.start;
        while position < range.end && entry < self.table.len() {
            let piece = self.table.piece_at(&mut entry, position);
            let length = piece.length().min(range.end - position);
            if let crate::content::spans::table::Piece::Content { entry, at, .. } = piece
                && !self.has_content(entry, at..at + length)
            {
                return false;
            }
            position += length;
        }
        true
    }

    /// Whether the cache has these bytes of an entry, be it in parts of blocks.
    fn has_content(&self, entry: usize, range: Range<u64>) -> bool {
        let first_block = self.table.stream_offset(entry) / BLOCK_SIZE;
        let mut at = range.start;
        while at < range.end {
            let block = (first_block + at / BLOCK_SIZE) as u32;
            let start = at - at % BLOCK_SIZE;
            let end = range.end.min(start + BLOCK_SIZE);
            if !self.cache.has(block) && !self.has_part(block, &((at - start) as u16..(end - start) as u16)) {
                return false;
            }
            at = end;
        }
        true
    }

    /// Whether the cache has a part of a block that was not whole when the caller looked. It may have become whole since, and
    /// then it has no parts any more.
    fn has_part(&self, block: u32, part: &Range<u16>) -> bool {
        self.cache.has_part(block, part) || self.cache.has(block)
    }

    /// Joins or begins the flights of some spans, in ascending order.
    pub(super) fn claim(&self, spans: Vec<usize>, urgency: Urgency) -> (Vec<Flight>, Vec<Duty>) {
        let (flights, duties) = self.common.flights.join(spans, urgency);
        // Another flight may have landed since the caller saw that a span was missing.
        let (there, missing): (Vec<_>, Vec<_>) =
            duties.into_iter().partition(|duty| self.has_span(duty.span));
        there.into_iter().for_each(|duty| duty.land(Ok(())));
        (flights, missing)
    }

    /// Whether there is so little room that something else would have to go for what is fetched.
    pub(super) fn cache_is_full(&self) -> bool {
        self.shared.cache.is_full()
    }

    /// Whether the cache's disk takes nothing at the moment.
    pub(super) fn cache_is_failing(&self) -> bool {
        self.shared.cache.is_failing()
    }

    #[cfg(test)]
    pub(super) fn flights(&self) -> usize {
        self.common.flights.len()
    }

    /// Joins or begins the flight of a span that nobody waits for. Without a duty somebody else is at it, or it is there.
    pub(super) fn claim_one(&self, span: usize) -> Option<Duty> {
        self.claim(vec![span], Urgency::Spare).1.pop()
    }

    /// Fetches all spans, those without content, too.
    #[cfg(test)]
    pub(super) async fn fetch_all_spans(&self) {
        let (_, duties) = self.common.flights.join((0..self.table.spans().len()).collect(), Urgency::Spare);
        self.fly(Run::new(duties, Urgency::Waited, 0)).await;
    }

    /// Fetches runs of neighbouring spans, each by a request of its own; the last one goes on up to span `end`, or what is there,
    /// as long as no other reader comes than those until `arrival`.
    fn launch(self: &Arc<Self>, duties: Vec<Duty>, end: usize, arrival: u64) {
        let Some(next) = duties.last().map(|last| last.span + 1) else { return };
        let end = (next..end).find(|span| self.has_span(*span)).unwrap_or(end).max(next);
        let mut runs: Vec<_> =
            runs(duties).into_iter().map(|duties| Run::new(duties, Urgency::Waited, arrival)).collect();
        let fly = |run| {
            let layer = Arc::clone(self);
            async move { layer.fly(run).await }
        };
        let Some(last) = runs.pop() else { return };
        if self.schedule().pace.piece().is_some() {
            // In pieces, what is behind is a request of its own, which others overtake.
            let (_, behind) = self.claim((next..end).collect(), Urgency::Expected);
            let (last, asked) = last.going_before();
            runs.push(last);
            let behind = self::runs(behind)
                .into_iter()
                .map(|duties| fly(Run::new(duties, Urgency::Expected, u64::MAX)));
            let behind = futures::future::join_all(behind);
            tokio::spawn(async move {
                let _ = asked.await;
                behind.await;
            });
        } else {
            runs.push(last.going_on_to(end));
        }
        for run in runs {
            tokio::spawn(fly(run));
        }
    }

    /// Takes a verified span into the cache, once what its tar headers said has been looked at: nobody is to read a
    /// file before it is refused.
    pub(super) fn accept(&self, span: usize, mut verified: Verified) {
        // A part of it may have come before, by another request.
        self.parked.forget(span);
        let headers = std::mem::take(&mut verified.headers);
        {
            let mut checks = lock(&self.common.headers);
            let refused = headers.finish(&self.table, &mut checks, self.directory());
            if !refused.is_empty() {
                self.common.refused.store(checks.refused() as u64, Ordering::Relaxed);
                tracing::error!(layer = %self.digest, entries = ?&refused[..refused.len().min(10)],
                    "the zTOC contradicts the tar headers of the layer; these files are refused");
            }
        }
        verified.publish();
        count(&self.counters.fetched_spans, 1);
        self.shared.cache.trim();
    }

    /// Fetches all of the layer while no reader waits, nor will soon.
    pub async fn fetch_in_background(self: Arc<Self>) {
        self.shared.schedule.open();
        crate::content::policy::background::fetch_all(self).await;
    }
}

fn too_small() -> FetchError {
    io::Error::other("the cache is too small for what is being read").into()
}

/// Splits duties, in ascending order, where spans do not follow each other.
pub(super) fn runs(duties: Vec<Duty>) -> Vec<Vec<Duty>> {
    let mut runs: Vec<Vec<Duty>> = Vec::new();
    for duty in duties {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.span + 1 == duty.span) => run.push(duty),
            _ => runs.push(vec![duty]),
        }
    }
    runs
}
