//! Connections that are much slower than their server has shown to be able to be.
//!
//! A connection that begins while others fill the link learns that the link is slow, and believes it for seconds after they have
//! ended: congestion control grows a window again only little by little. Its reader waits ten times longer than he would have to.
//! What is left is then better asked for again, over a connection that was quick, or over a new one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time over which rates are averaged.
const WINDOW: Duration = Duration::from_millis(250);
/// A connection that is so many times slower than its share straggles.
const SLOWER: f64 = 4.0;
/// It must be worth the round trips of asking again: so long, beside a third of what is left.
const WORTH: f64 = 0.4;
/// What is left of the best rate after each window: links become slower, too.
const FADE: f64 = 0.98;
/// How often one read changes its connection for this reason.
const MOST_CHANGES: u32 = 2;

/// What all connections to a server carry together.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    bytes: u64,
    /// Best rate of a window, in bytes a second.
    best: f64,
    /// Bodies that are being read.
    active: u32,
}

impl Traffic {
    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn enter(&self) {
        self.with(|state| state.active += 1);
    }

    pub(crate) fn leave(&self) {
        self.with(|state| state.active = state.active.saturating_sub(1));
    }

    /// Notes bytes that came.
    fn note(&self, bytes: u64) {
        self.with(|state| {
            state.bytes += bytes;
            let since = *state.since.get_or_insert_with(Instant::now);
            let elapsed = since.elapsed();
            if elapsed >= WINDOW {
                let rate = state.bytes as f64 / elapsed.as_secs_f64();
                state.best = rate.max(state.best * FADE);
                (state.since, state.bytes) = (None, 0);
            }
        });
    }

    /// The share of one connection in the best rate, in bytes a second.
    fn share(&self) -> f64 {
        self.with(|state| state.best / f64::from(state.active.max(1)))
    }
}

/// How one read gets on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Spent in waiting for bytes, since the last look at them.
    waited: Duration,
    bytes: u64,
    changes: u32,
}

impl Progress {
    /// Notes bytes for which the reader waited so long. Whether another connection should bring the `left` others.
    pub(super) fn straggles(&mut self, traffic: &Traffic, waited: Duration, bytes: u64, left: u64) -> bool {
        traffic.note(bytes);
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < WINDOW {
            return false;
        }
        let rate = self.bytes as f64 / self.waited.as_secs_f64();
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        let share = traffic.share();
        let (now, otherwise) = (left as f64 / rate.max(1.0), left as f64 / share.max(1.0));
        let straggles = self.changes < MOST_CHANGES && rate * SLOWER < share && now > 3.0 * otherwise + WORTH;
        self.changes += u32::from(straggles);
        straggles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_much_slower_than_its_share_straggles_and_not_for_ever() {
        let traffic = Traffic::default();
        traffic.enter();
        traffic.enter();
        traffic.with(|state| state.best = 10e6);
        let mut progress = Progress::default();
        let second = Duration::from_secs(1);
        // Its share is 5 MB/s.
        assert!(!progress.straggles(&traffic, second, 2_000_000, 10_000_000));
        // Not worth it.
        assert!(!progress.straggles(&traffic, second, 1_000_000, 300_000));
        // Too early to tell.
        assert!(!progress.straggles(&traffic, second / 100, 1000, 10_000_000));
        // A reader who takes his time is not to blame the server for it.
        assert!(!progress.straggles(&traffic, Duration::ZERO, 1000, 10_000_000));
        let straggles: Vec<_> =
            (0..4).map(|_| progress.straggles(&traffic, second, 500_000, 10_000_000)).collect();
        assert_eq!(straggles, [true, true, false, false]);
        // When the others have gone, more can be had.
        traffic.leave();
        assert!(Progress::default().straggles(&traffic, second, 2_000_000, 10_000_000));
        // Without anything to compare with there is nothing to say.
        assert!(!Progress::default().straggles(&Traffic::default(), second, 1, 10_000_000));
    }
}
