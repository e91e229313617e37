//! Fetching what nobody has asked for yet, while nobody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::metrics::{Count, Operation};
use crate::content::FetchError;
use crate::content::layer::LazyLayer;
use crate::content::link::request_slots::Urgency;
use crate::content::spans::request::Run;

/// Spans in one background request. A long run keeps the link busy; it is given up for a demand all the same.
const RUN: usize = 8;

/// Pause after an error, so that a registry that is down is not hammered; doubled with each further error.
const PAUSE: Duration = Duration::from_secs(5);

/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Fetches all spans of a layer that are not in the cache yet, as long as no reader waits for anything and there is
/// room for them. What lies next to what was read last comes first: that is what will be read next, if anything is.
pub(crate) async fn fetch_all(layer: Arc<LazyLayer>) {
    let mut missing = Missing { open: vec![true; layer.table().spans().len()] };
    let mut pause = PAUSE;
    let mut passed_over = 0;
    while missing.nearest(&layer).is_some() {
        if layer.cache_is_failing() {
            // It would only be lost again.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            continue;
        }
        if layer.cache_is_full() {
            // What somebody has asked for is worth more than what nobody has.
            tracing::info!(layer = %layer.digest(), "the cache is full: the rest is fetched when it is needed");
            return;
        }
        let turn = layer.schedule().spare().await;
        // A turn may be long in coming: what readers have wanted by then counts.
        let Some(span) = missing.nearest(&layer) else { break };
        let started = Instant::now();
        let end = (span + RUN).min(missing.open.len());
        let fetched = fetch_run(&layer, span, end).await;
        drop(turn);
        match fetched {
            Ok(()) => {
                let came = (span..end).take_while(|span| layer.has_span(*span)).count();
                layer.metrics().observe(Operation::BackgroundFetch, started.elapsed());
                layer.metrics().add(Count::BackgroundSpanFetch, came as u64);
                // Even if it should have been evicted meanwhile.
                missing.open[span..span + came.max(1)].fill(false);
                pause = PAUSE;
            }
            Err(FetchError::Cancelled) => {}
            Err(error @ (FetchError::Corrupt { .. } | FetchError::False { .. })) => {
                layer.metrics().count(Count::BackgroundSpanFetchFailure);
                tracing::warn!(layer = %layer.digest(), span, %error, "background fetch passes over a span");
                missing.open[span] = false;
                passed_over += 1;
            }
            Err(error) => {
                layer.metrics().count(Count::BackgroundSpanFetchFailure);
                tracing::warn!(layer = %layer.digest(), %error, "background fetch failed; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
    let missing = passed_over;
    layer.complete.store(missing == 0, std::sync::atomic::Ordering::Relaxed);
    tracing::info!(layer = %layer.digest(), missing, "background fetch is done");
}

/// What is still to be fetched.
struct Missing {
    /// By span; those that were there once are not looked at again.
    open: Vec<bool>,
}

impl Missing {
    /// The missing span next to the one that a reader wanted last; behind it rather than in front of it.
    fn nearest(&mut self, layer: &LazyLayer) -> Option<usize> {
        let wanted = layer.wanted().min(self.open.len());
        for distance in 0..=self.open.len() {
            let behind = wanted.checked_add(distance).filter(|span| *span < self.open.len());
            for span in [behind, wanted.checked_sub(distance)].into_iter().flatten() {
                if self.open.get(span) != Some(&true) {
                    continue;
                }
                if !layer.has_span(span) {
                    return Some(span);
                }
                self.open[span] = false;
            }
        }
        None
    }
}

/// Fetches a span and, unless a reader comes to wait for something else, those behind it.
async fn fetch_run(layer: &LazyLayer, span: usize, end: usize) -> Result<(), FetchError> {
    let arrival = layer.schedule().arrivals();
    let (flights, duties) = layer.claim(vec![span], Urgency::Spare);
    if !duties.is_empty() {
        // In pieces, readers overtake it; but what it has asked for is asked for.
        let end = if layer.schedule().pace.piece().is_some() { span + 1 } else { end };
        layer.fly(Run::new(duties, Urgency::Spare, arrival).going_on_to(end)).await;
    }
    for flight in flights {
        flight.wait().await?;
    }
    Ok(())
}
