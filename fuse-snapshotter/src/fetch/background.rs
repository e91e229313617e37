//! Fetching what nobody has asked for yet, while nobody asks.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::FetchError;
use super::layer::LazyLayer;
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
        layer.prefetching().idle().await;
        layer.demand().idle().await;
        let end = (span..(span + RUN).min(count)).find(|span| layer.has_span(*span));
        let end = end.unwrap_or((span + RUN).min(count));
        let started = Instant::now();
        let fetched = fetch_run(&layer, span, end).await;
        match &fetched {
            Ok(()) => {
                layer.metrics().observe(Operation::BackgroundFetch, started.elapsed());
                layer.metrics().add(Count::BackgroundSpanFetch, (end - span) as u64);
            }
            Err(FetchError::Cancelled) => {}
            Err(_) => layer.metrics().count(Count::BackgroundSpanFetchFailure),
        }
        match fetched {
            // Not looked at again, even if it should have been evicted meanwhile.
            Ok(()) => (span, pause) = (end, PAUSE),
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

/// Fetches a run of spans unless a reader comes to wait for something else.
async fn fetch_run(layer: &LazyLayer, start: usize, end: usize) -> Result<(), FetchError> {
    let (flights, duties) = layer.claim((start..end).collect(), false);
    let demanded: Vec<_> = duties.iter().map(super::flight::Duty::demanded).collect();
    let mut flying = pin!(async {
        // Others may be fetching some of them, so what is left need not be one run.
        for run in super::layer::runs(duties) {
            layer.fly(run).await;
        }
    });
    tokio::select! {
        () = &mut flying => {}
        // Leaving drops the requests.
        () = layer.demand().arrives() => {
            if !demanded.iter().any(super::flight::Demanded::is_set) {
                return Err(FetchError::Cancelled);
            }
            flying.await;
        }
    }
    for flight in flights {
        flight.wait().await?;
    }
    Ok(())
}
