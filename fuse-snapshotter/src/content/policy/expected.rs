//! Fetching what is known to be read soon: after what somebody waits for, before what nobody has asked for.
//!
//! Which spans these are, of which layers and in which order, is for [`crate::foresight::recorded`]; here one run of neighbouring spans
//! is one request. Background fetch waits as long as any is under way.

use std::ops::Range;
use std::sync::Arc;

use futures::future::join_all;

use crate::content::FetchError;
use crate::content::layer::{LazyLayer, runs};
use crate::content::link::request_slots::Urgency;
use crate::content::spans::request::Run;

/// Compressed bytes that are fetched at once of what a reader is expected to ask for.
const EXPECTED_AT_ONCE: u64 = 2 << 20;

/// How often spans are asked for that somebody else has begun to fetch and given up.
const ATTEMPTS: usize = 3;

impl LazyLayer {
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
        let run = run.start..run.end.min(self.table().spans().len());
        let (mut fetched, mut bytes) = (0, 0);
        let _expecting = self.schedule().expecting();
        for _ in 0..ATTEMPTS {
            let missing: Vec<_> = run.clone().filter(|span| !self.has_span(*span)).collect();
            if missing.is_empty() || self.cache_is_full() {
                break;
            }
            self.schedule().pulled().await;
            let fetch = self.fetch_expected(missing, Urgency::Expected).await?;
            fetched += fetch.spans;
            bytes += fetch.bytes;
            if fetch.whole {
                break;
            }
        }
        Ok((fetched, bytes))
    }

    /// Fetches what is missing of a range of an entry's content, because a reader is expected to ask for it soon. Readers who
    /// are there already go first, but what nobody expects waits.
    ///
    /// # Errors
    /// If it cannot be had; see [`FetchError`].
    pub async fn expect(self: &Arc<Self>, entry: usize, range: Range<u64>) -> Result<(), FetchError> {
        self.fetch_range(entry, range, Urgency::Expected).await
    }

    /// The same for what says what else readers will ask for: before the rest of what they will.
    ///
    /// # Errors
    /// As [`LazyLayer::expect`].
    pub async fn lead(self: &Arc<Self>, entry: usize, range: Range<u64>) -> Result<(), FetchError> {
        self.fetch_range(entry, range, Urgency::Leading).await
    }

    /// Fetches what is missing of a range of an entry, as urgently as this, in turns.
    async fn fetch_range(
        self: &Arc<Self>,
        entry: usize,
        range: Range<u64>,
        urgency: Urgency,
    ) -> Result<(), FetchError> {
        let _expecting = self.schedule().expecting();
        let missing = self.missing_spans(entry, &range);
        let mut missing = missing.as_slice();
        while !missing.is_empty() && !self.cache_is_full() {
            let (piece, rest) = missing.split_at(self.at_once(missing));
            missing = rest;
            let _turn = self.schedule().expected(urgency).await;
            let piece = piece.iter().copied().filter(|span| !self.has_span(*span));
            self.fetch_expected(piece.collect(), urgency).await?;
        }
        Ok(())
    }

    /// Fetches what is missing of a range of an entry's content, because a reader is likely to ask for most of it some time: in
    /// moments in which no reader waits, and one span after the other. `false` if there is no use in going on, because it
    /// cannot be had or the cache is full.
    pub async fn expect_later(&self, entry: usize, range: Range<u64>) -> bool {
        for span in self.missing_spans(entry, &range) {
            let _turn = self.schedule().likely().await;
            if self.cache_is_full() {
                return false;
            }
            if let Some(duty) = self.claim_one(span)
                && !self.try_span(duty).await
            {
                return false;
            }
        }
        true
    }

    /// How many of some spans are fetched at once: of a piece the last one waits for the first, and so does a reader who comes
    /// for it.
    fn at_once(&self, spans: &[usize]) -> usize {
        let mut bytes = 0;
        let fits = |span: &&usize| {
            let compressed = self.table().spans().compressed(**span);
            bytes += compressed.end - compressed.start;
            bytes <= EXPECTED_AT_ONCE
        };
        spans.iter().take_while(fits).count().max(1)
    }

    /// Fetches those of some spans that nobody else is fetching, each run by a request of its own, and waits for all.
    async fn fetch_expected(&self, spans: Vec<usize>, urgency: Urgency) -> Result<Fetched, FetchError> {
        let (flights, duties) = self.claim(spans, urgency);
        // What nobody expects gives way.
        let _waiting = self.schedule().enter(!duties.is_empty());
        let sizes = duties.iter().map(|duty| self.table().spans().compressed(duty.span));
        let bytes = sizes.map(|range| range.end - range.start).sum();
        let mut fetched = Fetched { spans: duties.len(), bytes, whole: true };
        join_all(runs(duties).into_iter().map(|run| self.fly(Run::new(run, urgency, u64::MAX)))).await;
        for flight in flights {
            match flight.wait().await {
                // Background fetch had it, and gave it up for a reader.
                Err(FetchError::Cancelled) => fetched.whole = false,
                landed => landed?,
            }
        }
        Ok(fetched)
    }
}

/// What came of a fetch.
struct Fetched {
    spans: usize,
    /// Compressed.
    bytes: u64,
    /// Nothing is still missing.
    whole: bool,
}
