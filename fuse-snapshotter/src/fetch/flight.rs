//! Fetches under way: one per span, however many readers wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::FetchError;
use crate::cache::lock;

/// How a flight ended.
pub(super) type Outcome = Result<(), FetchError>;

/// Someone's interest in a span that is being fetched.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    demanded: Arc<AtomicBool>,
    /// Somebody else had begun it.
    pub(super) joined: bool,
}

impl Flight {
    /// Waits until the span is in the cache.
    pub(super) async fn wait(mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(FetchError::Cancelled)),
            Err(_) => Err(FetchError::Cancelled),
        }
    }
}

/// The duty to fetch a span. Dropping it unfulfilled cancels the flight: a flight that nobody makes would keep all
/// who come later from making it.
#[derive(Debug)]
pub(super) struct Duty {
    pub(super) span: usize,
    outcome: watch::Sender<Option<Outcome>>,
    demanded: Arc<AtomicBool>,
    flights: Flights,
    landed: bool,
}

impl Duty {
    /// Whether a reader waits for it; may become true while it is under way.
    pub(super) fn is_demanded(&self) -> bool {
        self.demanded.load(Ordering::Relaxed)
    }

    /// Where that is seen.
    pub(super) fn demand(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.demanded)
    }

    /// Ends the flight. The span must be in the cache already if it went well, so that whoever comes later finds
    /// either the flight or the span.
    pub(super) fn land(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        self.landed = true;
        lock(&self.flights.0).remove(&self.span);
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.landed {
            self.end(Err(FetchError::Cancelled));
        }
    }
}

/// All flights of a layer, by span.
#[derive(Debug, Default, Clone)]
pub(super) struct Flights(Arc<Mutex<HashMap<usize, Flight>>>);

impl Flights {
    /// Joins the flights of some spans; for those that nobody is fetching yet, the caller gets the duty to do it.
    pub(super) fn join(&self, spans: Vec<usize>, demanded: bool) -> (Vec<Flight>, Vec<Duty>) {
        let mut flights = lock(&self.0);
        let mut duties = Vec::new();
        let joined = spans.into_iter().map(|span| {
            if let Some(flight) = flights.get(&span) {
                if demanded {
                    flight.demanded.store(true, Ordering::Relaxed);
                }
                return Flight { joined: true, ..flight.clone() };
            }
            let (outcome, receiver) = watch::channel(None);
            let demanded = Arc::new(AtomicBool::new(demanded));
            let flight = Flight { outcome: receiver, demanded: Arc::clone(&demanded), joined: false };
            flights.insert(span, flight.clone());
            duties.push(Duty { span, outcome, demanded, flights: self.clone(), landed: false });
            flight
        });
        (joined.collect(), duties)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}
