//! Fetching what is known to be read soon: after what somebody waits for, before what nobody has asked for.
//!
//! Which spans these are, of which layers and in which order, is for [`crate::prefetch`]; here one run of neighbouring spans
//! is one request. Background fetch waits as long as any is under way.

use std::ops::Range;
use std::sync::Arc;

use futures::future::join_all;

use super::FetchError;
use super::layer::{LazyLayer, runs};
use super::observe::ReadObserver;
use super::run::Run;

/// How often spans are asked for that somebody else has begun to fetch and given up.
const ATTEMPTS: usize = 3;

impl LazyLayer {
    /// Tells an observer of every read of this layer's files, as long as it lives.
    pub fn observe(&self, observer: &Arc<dyn ReadObserver>) {
        self.observers.add(observer);
    }

    /// The spans that hold a range of an entry's content, cut at its end; none if there is no such entry.
    #[must_use]
    pub fn spans_of(&self, entry: usize, range: &Range<u64>) -> Range<usize> {
        if entry >= self.table().len() || range.start >= self.table().size(entry) {
            return 0..0;
        }
        self.table().spans().spans_of(&self.table().archive_range(entry, range))
    }

    /// Fetches the spans of a run that the cache lacks and nobody is fetching, and waits for all of them. Returns how many
    /// spans, and how many compressed bytes, were fetched. Does nothing when the cache is full. Dropping the future drops
    /// the request; what has arrived stays.
    ///
    /// # Errors
    /// If a span cannot be had. Others of the run may be there all the same.
    pub async fn prefetch(self: &Arc<Self>, run: Range<usize>) -> Result<(usize, u64), FetchError> {
        let spans = self.table().spans();
        let run = run.start..run.end.min(spans.len());
        let (mut fetched, mut bytes) = (0, 0);
        let _expecting = self.schedule().expecting();
        for _ in 0..ATTEMPTS {
            let missing: Vec<_> = run.clone().filter(|span| !self.has_span(*span)).collect();
            if missing.is_empty() || self.cache_is_full() {
                break;
            }
            self.schedule().pulled().await;
            let (flights, duties) = self.claim(missing, false);
            // What nobody expects gives way.
            let _waiting = self.schedule().enter(!duties.is_empty());
            fetched += duties.len();
            let sizes = duties.iter().map(|duty| spans.compressed(duty.span));
            bytes += sizes.map(|range| range.end - range.start).sum::<u64>();
            join_all(runs(duties).into_iter().map(|run| self.fly(Run::new(run, u64::MAX)))).await;
            let mut cancelled = false;
            for flight in flights {
                match flight.wait().await {
                    // Background fetch had it, and gave it up for a reader.
                    Err(FetchError::Cancelled) => cancelled = true,
                    landed => landed?,
                }
            }
            if !cancelled {
                break;
            }
        }
        Ok((fetched, bytes))
    }
}
