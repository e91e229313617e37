//! Fetching what is known to be read soon: after what a reader waits for, before speculative and background fetches.
//!
//! Which spans these are, of which layers and in which order, is for others to know. Here one run of neighbouring
//! spans is one request. Background fetch waits as long as any is under way.

use std::ops::Range;

use futures::future::join_all;

use crate::content::error::FetchError;
use crate::content::link::priority::Priority;
use crate::content::spans::fetcher::SpanFetcher;
use crate::content::spans::request::{SpanRequest, neighbours};

/// Compressed bytes that are fetched at once of what a reader is expected to ask for.
const AT_ONCE: u64 = 2 << 20;

/// How often spans are asked for that somebody else has begun to fetch and given up.
const ATTEMPTS: usize = 3;

/// Fetches the spans of a run that the cache lacks and nobody is fetching, and waits for all of them. Returns how many
/// spans, and how many compressed bytes, were fetched.
pub(crate) async fn fetch_spans(
    fetcher: &SpanFetcher,
    run: Range<usize>,
) -> Result<(usize, u64), FetchError> {
    let run = run.start..run.end.min(fetcher.table().spans().len());
    let (mut fetched, mut bytes) = (0, 0);
    let schedule = &fetcher.link().schedule;
    let _expecting = schedule.expecting();
    for _ in 0..ATTEMPTS {
        let missing: Vec<_> = run.clone().filter(|span| !fetcher.has_span(*span)).collect();
        if missing.is_empty() || fetcher.contents().is_full() {
            break;
        }
        schedule.pulled().await;
        let batch = fetch_batch(fetcher, missing, Priority::Expected).await?;
        fetched += batch.spans;
        bytes += batch.bytes;
        if batch.complete {
            break;
        }
    }
    Ok((fetched, bytes))
}

/// Fetches what is missing of a range of an entry, as urgently as this, in turns.
pub(crate) async fn fetch_range(
    fetcher: &SpanFetcher,
    entry: usize,
    range: Range<u64>,
    priority: Priority,
) -> Result<(), FetchError> {
    let schedule = &fetcher.link().schedule;
    let _expecting = schedule.expecting();
    let missing = fetcher.missing_spans(entry, &range);
    let mut missing = missing.as_slice();
    while !missing.is_empty() && !fetcher.contents().is_full() {
        let (batch, rest) = missing.split_at(batch_size(fetcher, missing));
        missing = rest;
        let _turn = schedule.expected_turn(priority).await;
        let batch = batch.iter().copied().filter(|span| !fetcher.has_span(*span));
        fetch_batch(fetcher, batch.collect(), priority).await?;
    }
    Ok(())
}

/// Fetches what is missing of a range of an entry one span after the other, while no reader waits. `false` if there is
/// no use in going on, because it cannot be had or the cache is full.
pub(crate) async fn fetch_idle(fetcher: &SpanFetcher, entry: usize, range: Range<u64>) -> bool {
    for span in fetcher.missing_spans(entry, &range) {
        let _turn = fetcher.link().speculative_turn().await;
        if fetcher.contents().is_full() || !fetcher.try_span(span).await {
            return false;
        }
    }
    true
}

/// How many of some spans are fetched at once: the last of them waits for the first, and so does a reader that comes
/// for it.
fn batch_size(fetcher: &SpanFetcher, spans: &[usize]) -> usize {
    let mut bytes = 0;
    let fits = |span: &&usize| {
        let compressed = fetcher.table().spans().compressed(**span);
        bytes += compressed.end - compressed.start;
        bytes <= AT_ONCE
    };
    spans.iter().take_while(fits).count().max(1)
}

/// What came of fetching some spans.
struct Batch {
    spans: usize,
    /// Compressed.
    bytes: u64,
    /// Nothing is still missing.
    complete: bool,
}

/// Fetches those of some spans that nobody else is fetching, each run by a request of its own, and waits for all.
async fn fetch_batch(
    fetcher: &SpanFetcher,
    spans: Vec<usize>,
    priority: Priority,
) -> Result<Batch, FetchError> {
    let (flights, tickets) = fetcher.join_or_start(spans, priority);
    // What nobody expects gives way.
    let _waiting = fetcher.link().schedule.enter(!tickets.is_empty());
    let sizes = tickets.iter().map(|ticket| fetcher.table().spans().compressed(ticket.span));
    let bytes = sizes.map(|range| range.end - range.start).sum();
    let mut batch = Batch { spans: tickets.len(), bytes, complete: true };
    let requests = neighbours(tickets).into_iter().map(|run| SpanRequest::new(run, priority));
    join_all(requests.map(|request| fetcher.fetch(request))).await;
    for flight in flights {
        match flight.wait().await {
            // Background fetch had it, and gave it up for a reader.
            Err(FetchError::Cancelled) => batch.complete = false,
            fetched => fetched?,
        }
    }
    Ok(batch)
}
