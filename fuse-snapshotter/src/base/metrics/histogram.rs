//! Distributions of durations, with the reference's buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for milliseconds: up to 1, 2, 4 … 16384, and beyond.
pub(super) const LONG: usize = 15;
/// Buckets for microseconds: up to 1, 2, 4 … 1024, and beyond.
pub(super) const SHORT: usize = 11;

/// Counts by powers of two.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The last one that is used counts what is beyond all bounds.
    buckets: [AtomicU64; LONG + 1],
    nanoseconds: AtomicU64,
}

/// A [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Snapshot {
    /// Values up to 1, 2, 4 … units, each with all before it, and at last all values.
    pub(super) cumulative: Vec<u64>,
    /// Sum of all values, in units.
    pub(super) sum: f64,
}

fn unit(short: bool) -> (u64, usize) {
    if short { (1_000, SHORT) } else { (1_000_000, LONG) }
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration, short: bool) {
        let (unit, bounds) = unit(short);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // The smallest power of two that is not less, as its exponent.
        let units = nanoseconds.div_ceil(unit).max(1);
        let bucket = (u64::BITS - (units - 1).leading_zeros()) as usize;
        if let Some(bucket) = self.buckets.get(bucket.min(bounds)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// `None` if nothing was observed yet.
    pub(super) fn snapshot(&self, short: bool) -> Option<Snapshot> {
        let (unit, bounds) = unit(short);
        let mut sum = 0;
        let cumulative: Vec<u64> = self
            .buckets
            .iter()
            .take(bounds + 1)
            .map(|bucket| {
                sum += bucket.load(Ordering::Relaxed);
                sum
            })
            .collect();
        (sum > 0).then(|| Snapshot {
            cumulative,
            sum: self.nanoseconds.load(Ordering::Relaxed) as f64 / unit as f64,
        })
    }
}
