//! Fetches under way: one per span, however many readers wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::base::lock::lock;
use crate::content::FetchError;
use crate::content::link::request_slots::Urgency;

/// How a flight ended.
pub(crate) type Outcome = Result<(), FetchError>;

/// Someone's interest in a span that is being fetched.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    demand: Arc<Demand>,
    /// Somebody else had begun it.
    pub(crate) joined: bool,
}

impl Flight {
    /// Waits until the span is in the cache.
    pub(crate) async fn wait(mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(FetchError::Cancelled)),
            Err(_) => Err(FetchError::Cancelled),
        }
    }
}

/// How urgent a flight is to those who have joined it.
#[derive(Debug)]
pub(crate) struct Demand(AtomicU8);

impl Demand {
    pub(crate) fn new(urgency: Urgency) -> Self {
        Self(AtomicU8::new(urgency as u8))
    }

    pub(crate) fn urgency(&self) -> Urgency {
        Urgency::of(self.0.load(Ordering::Relaxed))
    }

    fn raise(&self, urgency: Urgency) {
        self.0.fetch_min(urgency as u8, Ordering::Relaxed);
    }
}

/// The duty to fetch a span. Dropping it unfulfilled cancels the flight: a flight that nobody makes would keep all
/// who come later from making it.
#[derive(Debug)]
pub(crate) struct Duty {
    pub(crate) span: usize,
    outcome: watch::Sender<Option<Outcome>>,
    demand: Arc<Demand>,
    flights: Flights,
    landed: bool,
}

impl Duty {
    /// Whether a reader waits for it; may become true while it is under way.
    pub(crate) fn is_demanded(&self) -> bool {
        self.demand.urgency() == Urgency::Waited
    }

    /// Where that is seen.
    pub(crate) fn demand(&self) -> Arc<Demand> {
        Arc::clone(&self.demand)
    }

    /// Ends the flight. The span must be in the cache already if it went well, so that whoever comes later finds
    /// either the flight or the span.
    pub(crate) fn land(mut self, outcome: Outcome) {
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
pub(crate) struct Flights(Arc<Mutex<HashMap<usize, Flight>>>);

impl Flights {
    /// Joins the flights of some spans; for those that nobody is fetching yet, the caller gets the duty to do it.
    /// All of them are as urgent as to the most hurried of those who joined.
    pub(crate) fn join(&self, spans: Vec<usize>, urgency: Urgency) -> (Vec<Flight>, Vec<Duty>) {
        let mut flights = lock(&self.0);
        let mut duties = Vec::new();
        let joined = spans.into_iter().map(|span| {
            if let Some(flight) = flights.get(&span) {
                flight.demand.raise(urgency);
                return Flight { joined: true, ..flight.clone() };
            }
            let (outcome, receiver) = watch::channel(None);
            let demand = Arc::new(Demand::new(urgency));
            let flight = Flight { outcome: receiver, demand: Arc::clone(&demand), joined: false };
            flights.insert(span, flight.clone());
            duties.push(Duty { span, outcome, demand, flights: self.clone(), landed: false });
            flight
        });
        (joined.collect(), duties)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}
