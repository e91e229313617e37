//! What a link is like, as requests show it: how long it is, and how much it carries.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::lock::lock;

/// Before anything was measured: a registry in the same region.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(20);
const USUAL_RATE: u64 = 50 << 20;

/// Round trip below which a registry is so near that one request for a span does: at 10 ms a second one beside it
/// gained nothing.
const NEAR: Duration = Duration::from_millis(25);

/// Answers after which a link may count as long: the first ones wait for connections, too.
const ANSWERS: u64 = 3;

/// Longest answer that is believed.
const LONGEST: Duration = Duration::from_secs(1);

/// Time over which rates are averaged.
const WINDOW: Duration = Duration::from_millis(200);

/// So many chunks are what a link carries in one round trip.
const CHUNKS_IN_FLIGHT: u64 = 3;

/// Bounds of a chunk, in bytes. Shorter ones cost more requests than they save time; longer ones would keep readers
/// waiting.
const CHUNK: std::ops::RangeInclusive<u64> = (256 << 10)..=(4 << 20);

/// Time from a request to the first byte of the answer, and bytes in a second that the link has been seen to carry.
#[derive(Debug, Default)]
pub(crate) struct LinkEstimate {
    /// In microseconds; 0: not known. Shorter answers count at once, longer ones little by little: they may have waited
    /// behind other bytes.
    round_trip: AtomicU64,
    answers: AtomicU64,
    /// In bytes a second; 0: not known.
    rate: AtomicU64,
    window: Mutex<Window>,
}

/// What has come since when.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    bytes: u64,
}

impl LinkEstimate {
    /// Believes what is known of the server from before, if nothing shorter was measured.
    pub(crate) fn begin(&self, round_trip: Duration) {
        let known = self.answers.fetch_max(ANSWERS, Ordering::Relaxed) > 0;
        if !known || round_trip < self.round_trip() {
            self.note_answer(round_trip);
        }
    }

    pub(crate) fn note_answer(&self, after: Duration) {
        // What takes longer has been tried again, and says nothing about the link.
        let micros = u64::try_from(after.min(LONGEST).as_micros()).unwrap_or(u64::MAX).max(1);
        self.answers.fetch_add(1, Ordering::Relaxed);
        let _ = self.round_trip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            Some(if old == 0 || micros < old { micros } else { old + (micros - old) / 16 })
        });
    }

    /// Notes bytes that have come, whoever asked for them.
    pub(crate) fn note_bytes(&self, bytes: usize) {
        let mut window = lock(&self.window);
        window.bytes = window.bytes.saturating_add(bytes as u64);
        let elapsed = window.since.get_or_insert_with(Instant::now).elapsed();
        if elapsed >= WINDOW {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
            let rate = window.bytes.saturating_mul(1_000_000) / micros;
            *window = Window::default();
            // Links become slower, too, but a window in which little was asked for says little.
            let fade = |old: u64| Some((old - old / 64).max(rate).max(1));
            let _ = self.rate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fade);
        }
    }

    pub(crate) fn round_trip(&self) -> Duration {
        match self.round_trip.load(Ordering::Relaxed) {
            0 => USUAL_ROUND_TRIP,
            micros => Duration::from_micros(micros),
        }
    }

    /// The size of the chunks in which to ask for ranges, in bytes, if the link is long.
    pub(crate) fn chunk_size(&self) -> Option<u64> {
        let round_trip = self.round_trip.load(Ordering::Relaxed);
        // What is not known yet counts as short.
        if self.answers.load(Ordering::Relaxed) < ANSWERS || self.round_trip() < NEAR {
            return None;
        }
        let rate = self.rate.load(Ordering::Relaxed);
        let full = rate.saturating_mul(round_trip) / 1_000_000;
        Some((full / CHUNKS_IN_FLIGHT).clamp(*CHUNK.start(), *CHUNK.end()))
    }

    /// How long so many bytes take.
    pub(crate) fn transfer(&self, bytes: u64) -> Duration {
        let rate = match self.rate.load(Ordering::Relaxed) {
            0 => USUAL_RATE,
            rate => rate,
        };
        Duration::from_micros(bytes.saturating_mul(1_000_000) / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_follows_what_is_measured() {
        let estimate = LinkEstimate::default();
        assert_eq!(estimate.round_trip(), USUAL_ROUND_TRIP);
        assert_eq!(estimate.transfer(USUAL_RATE), Duration::from_secs(1));
        estimate.note_answer(100 * MS);
        assert_eq!(estimate.round_trip(), 100 * MS);
        // A quicker answer counts at once, and slower ones little by little.
        estimate.note_answer(60 * MS);
        estimate.note_answer(220 * MS);
        assert_eq!(estimate.round_trip(), 70 * MS);
        for _ in 0..200 {
            estimate.note_answer(220 * MS);
        }
        assert!(estimate.round_trip() > 200 * MS);
        estimate.note_bytes(10 << 20);
        std::thread::sleep(WINDOW);
        estimate.note_bytes(10 << 20);
        assert!(estimate.transfer(1 << 20) < WINDOW && estimate.transfer(1 << 30) > WINDOW);
        // Nothing strange overflows.
        estimate.note_answer(Duration::MAX);
        estimate.note_answer(Duration::ZERO);
        estimate.note_bytes(usize::MAX);
        estimate.transfer(u64::MAX);
    }

    #[test]
    fn chunks_fill_long_links_and_are_not_for_short_ones() {
        let estimate = LinkEstimate::default();
        for _ in 0..ANSWERS {
            assert_eq!(estimate.chunk_size(), None);
            estimate.note_answer(50 * MS);
        }
        assert_eq!(estimate.chunk_size(), Some(*CHUNK.start()));
        // 62.5 MB/s for 50 ms.
        estimate.rate.store(62_500_000, Ordering::Relaxed);
        assert_eq!(estimate.chunk_size(), Some(62_500_000 / 20 / CHUNKS_IN_FLIGHT));
        estimate.rate.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(estimate.chunk_size(), Some(*CHUNK.end()));
        estimate.note_answer(10 * MS);
        assert_eq!(estimate.chunk_size(), None);
        estimate.begin(50 * MS);
        assert_eq!(estimate.chunk_size(), None);
        let estimate = LinkEstimate::default();
        estimate.begin(50 * MS);
        assert_eq!(estimate.chunk_size(), Some(*CHUNK.start()));
        estimate.begin(10 * MS);
        assert_eq!(estimate.chunk_size(), None);
    }
}
