//! Spans as a supplier: what a reader lacks, and with it what is likely to be read next.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::fetcher::SpanFetcher;
use crate::base::lock::lock;
use crate::content::error::FetchError;
use crate::content::link::priority::Priority;
use crate::content::policy::readahead::ReadAhead;
use crate::content::policy::speculative::Speculation;
use crate::content::supplier::{Supplier, Supply};

/// Supplies a layer by spans, read ahead of sequential readers, and followed by a speculation on the rest of a file.
pub(crate) struct SpanSupplier {
    fetcher: Arc<SpanFetcher>,
    read_ahead: Mutex<ReadAhead>,
    speculation: Arc<Speculation>,
}

impl SpanSupplier {
    pub(crate) fn new(fetcher: Arc<SpanFetcher>) -> Self {
        let speculation = Arc::new(Speculation::new(&fetcher));
        Self { fetcher, read_ahead: Mutex::default(), speculation }
    }

    /// The end of what to fetch for a reader that waits for spans `first..end`.
    fn read_ahead(&self, entry: usize, first: usize, end: usize) -> usize {
        let link = self.fetcher.link();
        if link.schedule.is_expecting() {
            // The link has better things to do.
            return end;
        }
        let (table, sparing) = (self.fetcher.table(), link.readers_overtake());
        let all = table.spans_of_entry(entry);
        lock(&self.read_ahead).extend(entry, first, end, &all, table.spans().len(), sparing)
    }
}

#[async_trait]
impl Supplier for SpanSupplier {
    async fn supply(&self, entry: usize, range: &Range<u64>) -> Result<Supply, FetchError> {
        let fetcher = &self.fetcher;
        let missing = fetcher.missing_spans(entry, range);
        let (Some(first), Some(last)) = (missing.first().copied(), missing.last().copied()) else {
            return Ok(Supply::Nothing);
        };
        let layer = fetcher.contents().digest();
        tracing::debug!(%layer, entry, offset = range.start, first, last, "a reader waits for spans");
        let (flights, tickets) = fetcher.join_or_start(missing, Priority::Demand);
        let unforeseen = !tickets.is_empty();
        let waiting = fetcher.link().schedule.enter(unforeseen);
        fetcher.note_demand(last);
        // What is read ahead is not waited for, but rides along in the same request.
        let end = self.read_ahead(entry, first, last + 1);
        fetcher.start(tickets, end, waiting.arrival);
        let (mut complete, mut others_failed) = (true, None);
        for flight in flights {
            let joined = flight.joined;
            match flight.wait().await {
                Ok(()) => {}
                Err(FetchError::Cancelled) => complete = false,
                Err(error) if joined => others_failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = others_failed {
            return Ok(Supply::OthersFailed(error));
        }
        if !complete {
            return Ok(Supply::Interrupted);
        }
        // What was expected, or recorded, is no reason to guess.
        if unforeseen {
            self.speculation.note_wait(entry, last, fetcher.table().spans_of_entry(entry));
        }
        Ok(Supply::Complete)
    }
}
