//! Fetching what nobody has asked for yet, while nobody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::FetchError;
use super::layer::LazyLayer;
use super::run::Run;
use crate::metrics::{Count, Operation};

/// Spans in one background request. A long run keeps the link busy; it is given up for a demand all the same.
const RUN: usize = 4;

/// Pause after an error, so that a registry that is down is not hammered; doubled with each further error.
const PAUSE: Duration = Duration::from_secs(5);

/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Fetches all spans of a layer that are not in the cache yet, as long as no reader waits for anything and there is
/// room for them.
pub(super) async fn fetch_all(layer: Arc<LazyLayer>) {
    let count = layer.table().spans().len();
    let mut span = 0;
    let mut pause = PAUSE;
    let mut missing = 0;
    while span < count {
        if layer.has_span(span) {
            span += 1;
            continue;
        }
        if layer.cache_is_full() {
            // What somebody has asked for is worth more than what nobody has.
            tracing::info!(layer = %layer.digest(), "the cache is full: the rest is fetched when it is needed");
            return;
        }
        let turn = layer.schedule().spare().await;
        let end = (span + RUN).min(count);
        let started = Instant::now();
        let fetched = fetch_run(&layer, span, end).await;
        drop(turn);
        let done = (span..end).take_while(|span| layer.has_span(*span)).count();
        match &fetched {
            Ok(()) => {
                layer.metrics().observe(Operation::BackgroundFetch, started.elapsed());
                layer.metrics().add(Count::BackgroundSpanFetch, done as u64);
            }
            Err(FetchError::Cancelled) => {}
            Err(_) => layer.metrics().count(Count::BackgroundSpanFetchFailure),
        }
        match fetched {
            // Not looked at again, even if it should have been evicted meanwhile.
            Ok(()) => (span, pause) = (span + done.max(1), PAUSE),
            Err(FetchError::Cancelled) => {}
            Err(error @ (FetchError::Corrupt { .. } | FetchError::False { .. })) => {
                tracing::warn!(layer = %layer.digest(), span, %error, "background fetch passes over a span");
                (span, missing) = (span + 1, missing + 1);
            }
            Err(error) => {
                tracing::warn!(layer = %layer.digest(), %error, "background fetch failed; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
    layer.complete.store(missing == 0, std::sync::atomic::Ordering::Relaxed);
    tracing::info!(layer = %layer.digest(), missing, "background fetch is done");
}

/// Fetches a span and, unless a reader comes to wait for something else, those behind it.
async fn fetch_run(layer: &LazyLayer, span: usize, end: usize) -> Result<(), FetchError> {
    let arrival = layer.schedule().arrivals();
    let (flights, duties) = layer.claim(vec![span], false);
    if !duties.is_empty() {
        layer.fly(Run::new(duties, arrival).going_on_to(end)).await;
    }
    for flight in flights {
        flight.wait().await?;
    }
    Ok(())
}
