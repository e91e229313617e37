//! The counters of one layer: atomics without names, for the code that counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;
use super::scrape::Scrape;
use super::series::{self, Count, Operation};

/// The metrics of one layer.
#[derive(Debug, Default)]
pub struct LayerMetrics {
    durations: [Histogram; Operation::ALL.len()],
    counts: [AtomicU64; Count::ALL.len()],
    served: AtomicU64,
}

impl LayerMetrics {
    /// Something took this long.
    pub fn observe(&self, what: Operation, duration: Duration) {
        if let Some(histogram) = self.durations.get(what as usize) {
            histogram.observe(duration, what.is_short());
        }
    }

    /// Something happened.
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Something happened `n` times.
    pub fn add(&self, what: Count, n: u64) {
        if let Some(counter) = self.counts.get(what as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// A read of a file was answered with `bytes` bytes, after `duration`.
    pub fn served(&self, bytes: u64, duration: Duration) {
        self.count(Count::SynchronousRead);
        self.observe(Operation::SynchronousRead, duration);
        self.served.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Shows what is not 0, as in the reference.
    pub(super) fn collect(&self, layer: &str, scrape: &mut Scrape) {
        for (what, histogram) in Operation::ALL.into_iter().zip(&self.durations) {
            if let Some(snapshot) = histogram.snapshot(what.is_short()) {
                let family = if what.is_short() { &series::MICROSECONDS } else { &series::MILLISECONDS };
                scrape.set_histogram(family, &[layer, what.name()], snapshot);
            }
        }
        for (what, counter) in Count::ALL.into_iter().zip(&self.counts) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                scrape.set(&series::OPERATION_COUNT, &[layer, what.name()], count);
            }
        }
        let served = self.served.load(Ordering::Relaxed);
        if served > 0 {
            scrape.set(&series::BYTES_SERVED, &[layer, series::SYNCHRONOUS_BYTES], served);
        }
    }
}
