//! Fetches under way: each part of a layer has one at a time, however many readers wait for it.
//!
//! A fetch is known by the range of the archive that it brings, so that whoever supplies bytes sees what others are
//! fetching: two must not write the same blocks at the same time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::error::FetchError;
use super::link::priority::{Priority, SharedPriority};
use crate::base::lock::lock;

/// How a flight ended.
pub(crate) type Fetched = Result<(), FetchError>;

/// Someone's interest in something that is being fetched.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    result: watch::Receiver<Option<Fetched>>,
    priority: Arc<SharedPriority>,
    /// Somebody else had begun it.
    pub(crate) joined: bool,
}

impl Flight {
    /// Waits until the bytes are in the cache.
    pub(crate) async fn wait(mut self) -> Fetched {
        match self.result.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Err(FetchError::Cancelled)),
            Err(_) => Err(FetchError::Cancelled),
        }
    }
}

/// The duty to fetch something. Dropping it unfulfilled cancels the flight: a flight that nobody makes would keep all
/// that come later from making it.
#[derive(Debug)]
pub(crate) struct FetchTicket {
    range: Range<u64>,
    result: watch::Sender<Option<Fetched>>,
    priority: Arc<SharedPriority>,
    flights: Flights,
    completed: bool,
}

impl FetchTicket {
    /// Whether a reader waits for it; may become true while it is under way.
    pub(crate) fn is_demanded(&self) -> bool {
        self.priority.get() == Priority::Demand
    }

    /// Where that is seen.
    pub(crate) fn priority(&self) -> Arc<SharedPriority> {
        Arc::clone(&self.priority)
    }

    /// Ends the flight. The bytes must be in the cache already if it went well, so that whoever comes later finds
    /// either the flight or the bytes.
    pub(crate) fn complete(mut self, result: Fetched) {
        self.end(result);
    }

    fn end(&mut self, result: Fetched) {
        self.completed = true;
        if !self.range.is_empty() {
            lock(&self.flights.0).remove(&self.range.start);
        }
        self.result.send_replace(Some(result));
    }
}

impl Drop for FetchTicket {
    fn drop(&mut self) {
        if !self.completed {
            self.end(Err(FetchError::Cancelled));
        }
    }
}

/// A flight, and where it ends in the archive.
#[derive(Debug)]
struct UnderWay {
    end: u64,
    flight: Flight,
}

/// All flights of a layer, by where in the archive they begin. They do not overlap.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flights(Arc<Mutex<BTreeMap<u64, UnderWay>>>);

impl Flights {
    /// Joins the flights of some ranges of the archive; for those that nobody is fetching yet, the caller gets the
    /// ticket to do it. A range that overlaps one under way joins it, so that the caller has to look again after that.
    /// All are as urgent as to the most urgent of those that joined. An empty range is nobody else's.
    pub(crate) fn join_or_start(
        &self,
        ranges: impl IntoIterator<Item = Range<u64>>,
        priority: Priority,
    ) -> Vec<(Flight, Option<FetchTicket>)> {
        let mut flights = lock(&self.0);
        let join_or_start = |range: Range<u64>| {
            let before = flights.range(..range.end).next_back().map(|(_, under_way)| under_way);
            let overlapping = before.filter(|known| known.end > range.start && !range.is_empty());
            if let Some(UnderWay { flight, .. }) = overlapping {
                flight.priority.raise(priority);
                return (Flight { joined: true, ..flight.clone() }, None);
            }
            let (result, receiver) = watch::channel(None);
            let priority = Arc::new(SharedPriority::new(priority));
            let flight = Flight { result: receiver, priority: Arc::clone(&priority), joined: false };
            if !range.is_empty() {
                flights.insert(range.start, UnderWay { end: range.end, flight: flight.clone() });
            }
            (flight, Some(FetchTicket { range, result, priority, flights: self.clone(), completed: false }))
        };
        ranges.into_iter().map(join_or_start).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_fetched_once_at_a_time() {
        let flights = Flights::default();
        let begins = |range: Range<u64>| {
            let mut joined = flights.join_or_start([range], Priority::Background);
            joined.pop().and_then(|(flight, ticket)| {
                assert_eq!(flight.joined, ticket.is_none());
                ticket
            })
        };
        let first = begins(100..200);
        assert!(first.is_some());
        for overlapping in [100..200, 0..101, 199..300, 120..130, 50..500] {
            assert!(begins(overlapping.clone()).is_none(), "{overlapping:?}");
        }
        let beside = [begins(0..100), begins(200..300), begins(150..150), begins(100..100)];
        assert!(beside.iter().all(Option::is_some));
        assert_eq!(flights.len(), 3);
        drop(beside);
        assert!(begins(100..200).is_none());
        drop(first);
        assert!(begins(100..200).is_some());
        assert_eq!(flights.len(), 0);
    }
}
