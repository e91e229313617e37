//! Fetching what nobody has asked for yet, while nobody asks.

use std::time::{Duration, Instant};

use crate::base::metrics::{Count, Operation};
use crate::content::error::FetchError;
use crate::content::link::priority::Priority;
use crate::content::spans::fetcher::SpanFetcher;
use crate::content::spans::request::SpanRequest;

/// Spans in one background request. A long one keeps the link busy; it is given up for a reader all the same.
const BATCH: usize = 8;

/// Pause after an error, so that a registry that is down is not hammered; doubled with each further error.
const PAUSE: Duration = Duration::from_secs(5);

/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Fetches all spans of a layer that are not in the cache yet, as long as no reader waits for anything and there is
/// room for them. What lies next to what was read last comes first: that is what will be read next, if anything is.
pub(crate) async fn fetch_all(fetcher: &SpanFetcher) {
    let (contents, schedule) = (fetcher.contents(), &fetcher.link().schedule);
    let (layer, metrics) = (contents.digest(), fetcher.metrics());
    schedule.open();
    let mut unfetched = Unfetched { open: vec![true; fetcher.table().spans().len()] };
    let mut pause = PAUSE;
    let mut passed_over = 0;
    while unfetched.nearest(fetcher).is_some() {
        if contents.is_failing() {
            // It would only be lost again.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            continue;
        }
        if contents.is_full() {
            // What somebody has asked for is worth more than what nobody has.
            tracing::info!(%layer, "the cache is full: the rest is fetched when it is needed");
            return;
        }
        let turn = schedule.background_turn().await;
        // A turn may be long in coming: what readers have wanted by then counts.
        let Some(span) = unfetched.nearest(fetcher) else { break };
        let started = Instant::now();
        let end = (span + BATCH).min(unfetched.open.len());
        let fetched = fetch_run(fetcher, span, end).await;
        drop(turn);
        match fetched {
            Ok(()) => {
                let came = (span..end).take_while(|span| fetcher.has_span(*span)).count();
                metrics.observe(Operation::BackgroundFetch, started.elapsed());
                metrics.add(Count::BackgroundSpanFetch, came as u64);
                // Even if it should have been evicted meanwhile.
                unfetched.open[span..span + came.max(1)].fill(false);
                pause = PAUSE;
            }
            Err(FetchError::Cancelled) => {}
            Err(error @ (FetchError::Corrupt { .. } | FetchError::False { .. })) => {
                metrics.count(Count::BackgroundSpanFetchFailure);
                tracing::warn!(%layer, span, %error, "background fetch passes over a span");
                unfetched.open[span] = false;
                passed_over += 1;
            }
            Err(error) => {
                metrics.count(Count::BackgroundSpanFetchFailure);
                tracing::warn!(%layer, %error, "background fetch failed; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
    let missing = passed_over;
    fetcher.set_complete(missing == 0);
    tracing::info!(%layer, missing, "background fetch is done");
}

/// What is still to be fetched.
struct Unfetched {
    /// By span; those that were there once are not looked at again.
    open: Vec<bool>,
}

impl Unfetched {
    /// The missing span next to the one that a reader wanted last; behind it rather than in front of it.
    fn nearest(&mut self, fetcher: &SpanFetcher) -> Option<usize> {
        let demanded = fetcher.demanded().min(self.open.len());
        for distance in 0..=self.open.len() {
            let behind = demanded.checked_add(distance).filter(|span| *span < self.open.len());
            for span in [behind, demanded.checked_sub(distance)].into_iter().flatten() {
                if self.open.get(span) != Some(&true) {
                    continue;
                }
                if !fetcher.has_span(span) {
                    return Some(span);
                }
                self.open[span] = false;
            }
        }
        None
    }
}

/// Fetches a span and, unless a reader comes to wait for something else, those behind it.
async fn fetch_run(fetcher: &SpanFetcher, span: usize, end: usize) -> Result<(), FetchError> {
    let arrival = fetcher.link().schedule.arrivals();
    let (flights, tickets) = fetcher.join_or_start(vec![span], Priority::Background);
    if !tickets.is_empty() {
        // Readers that overtake still wait for what is asked for already.
        let end = if fetcher.link().readers_overtake() { span + 1 } else { end };
        fetcher.fetch(SpanRequest::new(tickets, Priority::Background).going_on_to(end, arrival)).await;
    }
    for flight in flights {
        flight.wait().await?;
    }
    Ok(())
}
