//! What the link is like, as requests show it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Before anything was measured: a registry in the same region.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(20);
const USUAL_RATE: u64 = 50 << 20;

/// Round trip below which a registry is so near that one connection does: at 10 ms a second one gained nothing.
const NEAR: Duration = Duration::from_millis(25);

/// Longest answer that is believed.
const LONGEST: Duration = Duration::from_secs(1);

/// Bodies shorter than this say nothing about the rate, in bytes.
const TELLING: u64 = 256 << 10;

/// Time from a request to the first byte of the answer, and bytes in a second of one connection. Each new value counts a
/// quarter.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// In microseconds; 0: not known.
    round_trip: AtomicU64,
    /// In bytes a second; 0: not known.
    rate: AtomicU64,
}

impl Pace {
    pub(super) fn note_answer(&self, after: Duration) {
        // What takes longer has been tried again, and says nothing about the link.
        let after = after.min(LONGEST);
        blend(&self.round_trip, u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn note_body(&self, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        if bytes >= TELLING {
            blend(&self.rate, bytes.saturating_mul(1_000_000) / micros);
        }
    }

    pub(super) fn round_trip(&self) -> Duration {
        match self.round_trip.load(Ordering::Relaxed) {
            0 => USUAL_ROUND_TRIP,
            micros => Duration::from_micros(micros),
        }
    }

    /// Where to part a range that a reader waits for, if it is worth it to read it over two connections.
    pub(super) fn middle(&self, range: Range<u64>) -> Option<u64> {
        let length = range.end.saturating_sub(range.start);
        let (round_trip, transfer) = (self.round_trip(), self.transfer(length));
        let worth = length >= 2 * TELLING && round_trip >= NEAR && transfer >= round_trip * 2;
        worth.then_some(range.start + length / 2)
    }

    /// How long so many bytes take.
    pub(super) fn transfer(&self, bytes: u64) -> Duration {
        let rate = match self.rate.load(Ordering::Relaxed) {
            0 => USUAL_RATE,
            rate => rate,
        };
        Duration::from_micros(bytes.saturating_mul(1_000_000) / rate)
    }
}

fn blend(value: &AtomicU64, new: u64) {
    let _ = value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
        Some(if old == 0 { new } else { old - old / 4 + new / 4 }.max(1))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_measured() {
        let pace = Pace::default();
        assert_eq!(pace.round_trip(), USUAL_ROUND_TRIP);
        assert_eq!(pace.transfer(USUAL_RATE), Duration::from_secs(1));
        pace.note_answer(Duration::from_millis(100));
        pace.note_body(10 << 20, Duration::from_secs(1));
        // Too short to tell.
        pace.note_body(10, Duration::from_secs(1));
        assert_eq!(pace.round_trip(), Duration::from_millis(100));
        assert_eq!(pace.transfer(5 << 20), Duration::from_millis(500));
        for _ in 0..50 {
            pace.note_answer(Duration::from_millis(10));
        }
        assert!(pace.round_trip() < Duration::from_millis(11));
        // 5 MB take half a second: fifty round trips, but short ones. Of 50 ms they are ten, and a twentieth of it is too little.
        assert_eq!(pace.middle(10..(5 << 20) + 10), None);
        pace.note_answer(Duration::from_millis(170));
        assert_eq!(pace.middle(10..(5 << 20) + 10), Some((5 << 19) + 10));
        assert_eq!(pace.middle(10..(1 << 18) + 10), None);
        // Nothing strange overflows.
        pace.note_answer(Duration::MAX);
        pace.note_body(u64::MAX, Duration::ZERO);
        pace.transfer(u64::MAX);
    }
}
