//! One layer that is read lazily.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use registry::{BlobReader, Digest};

use super::cache::{LayerCache, Pin};
use super::contents::LayerContents;
use super::context::FetchContext;
use super::error::FetchError;
use super::link::priority::Priority;
use super::link::sources::Sources;
use super::policy::{background, expected};
use super::spans::fetcher::SpanFetcher;
use super::spans::supplier::SpanSupplier;
use super::spans::table::LayerTable;
use super::spans::twin::Twin;
use super::stats::{Counter, LayerStats};
use super::supplier::{Supplier, Supply};
use crate::base::lock::lock;
use crate::base::metrics::LayerMetrics;

/// How often a read looks again for blocks that were evicted, or cancelled, after they had been fetched.
const ATTEMPTS: usize = 8;

/// A layer whose contents come from the cache and, where that lacks them, from a supplier.
pub struct LazyLayer {
    contents: Arc<LayerContents>,
    supplier: Arc<dyn Supplier>,
    /// For what is fetched although no reader waits for it.
    fetcher: Arc<SpanFetcher>,
    served_bytes: Counter,
    last_error: Mutex<Option<String>>,
}

impl std::fmt::Debug for LazyLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazyLayer").field("digest", self.digest()).finish_non_exhaustive()
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
        context: FetchContext,
    ) -> Arc<Self> {
        let (digest, root) = (reader.digest().clone(), Arc::clone(&context.cache));
        if let Some(round_trip) = reader.round_trip() {
            // Its zTOC has come from there, so that the first spans need not be asked for to know what the link is
            // like.
            context.link.estimate.begin(round_trip);
        }
        let metrics = context.metrics().layer(&digest);
        let contents = Arc::new(LayerContents::new(digest, table, cache, root));
        let fetcher = SpanFetcher::new(
            Arc::clone(&contents),
            ztoc,
            reader.size(),
            Sources::new(reader),
            Arc::clone(&context.link),
            metrics,
        );
        let fetcher = Arc::new(fetcher);
        let supplier = Arc::new(SpanSupplier::new(Arc::clone(&fetcher)));
        Arc::new(Self {
            contents,
            supplier,
            fetcher,
            served_bytes: Counter::default(),
            last_error: Mutex::default(),
        })
    }

    /// Digest of the layer.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.contents.digest()
    }

    /// Size of the layer as it is in the registry, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.fetcher.size()
    }

    /// Whether both serve the same bytes for the same entry: the same layer, read with the same zTOC.
    pub(crate) fn has_same_content(&self, other: &Self) -> bool {
        self.digest() == other.digest() && self.contents.directory() == other.contents.directory()
    }

    /// Why the last read that failed did so. It stays when later reads succeed.
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
        self.fetcher.metrics()
    }

    /// Where its files are.
    #[must_use]
    pub fn table(&self) -> &Arc<LayerTable> {
        self.contents.table()
    }

    /// Bytes of the layer's files that are in the cache, rounded up to blocks.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.contents.cache().present()
    }

    /// The parts of an entry's content that the cache has, as far as they are whole blocks.
    pub(crate) fn cached_ranges(&self, entry: usize) -> Vec<Range<u64>> {
        self.contents.cached_ranges(entry)
    }

    /// How much of the layer, compressed, this process has fetched, in bytes; all of it once background fetch has found
    /// that nothing is missing, whoever fetched it.
    #[must_use]
    pub fn fetched_size(&self) -> u64 {
        self.fetcher.fetched_size()
    }

    /// What the layer has cost and given.
    #[must_use]
    pub fn stats(&self) -> LayerStats {
        let counters = self.fetcher.counters();
        LayerStats {
            fetched_bytes: counters.fetched_bytes.get(),
            fetched_spans: counters.fetched_spans.get(),
            requests: self.fetcher.sources().requests(),
            corrupt_spans: counters.corrupt_spans.get(),
            refused_entries: self.contents.refused(),
            served_bytes: self.served_bytes.get(),
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
            self.served_bytes.add(buffer.len() as u64);
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
        self.contents.read(entry, offset, buffer)
    }

    /// Fetches what the cache lacks of an entry's content, and reads it then. Meant for what [`LazyLayer::try_read`]
    /// did not find: it begins with the fetch. `buffer` must not reach beyond the content.
    ///
    /// # Errors
    /// As [`LazyLayer::try_read`], or if the content cannot be had; see [`FetchError`].
    pub async fn read(&self, entry: usize, offset: u64, buffer: &mut [u8]) -> Result<(), FetchError> {
        let range = offset..offset + buffer.len() as u64;
        let mut pin = None;
        for _ in 0..ATTEMPTS {
            // The one before is let go of only now.
            pin.replace(self.fill(entry, range.clone()).await.map_err(|error| self.note(error))?);
            if self.try_read(entry, offset, buffer)?.is_some() {
                return Ok(());
            }
        }
        Err(self.note(too_small()))
    }

    /// Fetches what the cache lacks of a range of an entry's content. What is there then stays, up to a limit, as
    /// long as the result lives.
    pub(super) async fn fill(&self, entry: usize, range: Range<u64>) -> Result<Pin, FetchError> {
        // Otherwise others could evict it before it is read, again and again.
        let pin = self.contents.pin(entry, &range);
        let mut failed_before = false;
        for _ in 0..ATTEMPTS {
            match self.supplier.supply(entry, &range).await? {
                Supply::Nothing | Supply::Complete => return Ok(pin),
                Supply::Interrupted => {}
                Supply::OthersFailed(error) if failed_before => return Err(error),
                Supply::OthersFailed(_) => failed_before = true,
            }
        }
        Err(too_small())
    }

    /// Adds a blob with the same content.
    pub(crate) fn add_twin(&self, twin: Arc<dyn Twin>) {
        self.fetcher.twins().add(twin);
    }

    /// Fetches all of the layer while no reader waits, nor will soon.
    pub async fn fetch_in_background(self: Arc<Self>) {
        background::fetch_all(&self.fetcher).await;
    }

    /// The spans that hold a range of an entry's content, cut at its end; none if there is no such entry.
    #[must_use]
    pub fn spans_of(&self, entry: usize, range: &Range<u64>) -> Range<usize> {
        self.table().spans_of(entry, range)
    }

    /// Fetches the spans of a run that the cache lacks and nobody is fetching, and waits for all of them. Returns how
    /// many spans, and how many compressed bytes, were fetched. Does nothing when the cache is full. Dropping the
    /// future drops the request; what has arrived stays.
    ///
    /// # Errors
    /// If a span cannot be had. Others of the run may be there all the same.
    pub async fn prefetch(&self, run: Range<usize>) -> Result<(usize, u64), FetchError> {
        expected::fetch_spans(&self.fetcher, run).await
    }

    /// Fetches what is missing of a range of an entry's content, because a reader is expected to ask for it soon.
    /// Readers that wait already go first; speculative and background fetches come after it.
    ///
    /// # Errors
    /// If it cannot be had; see [`FetchError`].
    pub async fn expect(&self, entry: usize, range: Range<u64>) -> Result<(), FetchError> {
        expected::fetch_range(&self.fetcher, entry, range, Priority::Expected).await
    }

    /// The same for what tells what else readers will ask for: before the rest of what they will.
    ///
    /// # Errors
    /// As [`LazyLayer::expect`].
    pub async fn discover(&self, entry: usize, range: Range<u64>) -> Result<(), FetchError> {
        expected::fetch_range(&self.fetcher, entry, range, Priority::Discovery).await
    }

    /// Fetches what is missing of a range of an entry's content, because a reader is likely to ask for most of it some
    /// time: one span after the other, while no reader waits. `false` if there is no use in going on, because it cannot
    /// be had or the cache is full.
    pub async fn prefetch_idle(&self, entry: usize, range: Range<u64>) -> bool {
        expected::fetch_idle(&self.fetcher, entry, range).await
    }

    /// The same layer, whose readers are served by this supplier.
    #[cfg(test)]
    pub(super) fn with_supplier(layer: &Self, supplier: Arc<dyn Supplier>) -> Self {
        Self {
            contents: Arc::clone(&layer.contents),
            supplier,
            fetcher: Arc::clone(&layer.fetcher),
            served_bytes: Counter::default(),
            last_error: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn fetcher(&self) -> &Arc<SpanFetcher> {
        &self.fetcher
    }

    #[cfg(test)]
    pub(super) fn flights(&self) -> usize {
        self.contents.flights().len()
    }

    #[cfg(test)]
    pub(super) fn contents(&self) -> &Arc<LayerContents> {
        &self.contents
    }
}

fn too_small() -> FetchError {
    io::Error::other("the cache is too small for what is being read").into()
}
