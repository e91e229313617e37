//! What a layer has cost and given.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a layer has cost and given, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Compressed bytes that were fetched.
    pub fetched_bytes: u64,
    /// Spans that were fetched; a span that is fetched again counts again.
    pub fetched_spans: u64,
    /// Ranged reads.
    pub requests: u64,
    /// Spans whose digest was wrong.
    pub corrupt_spans: u64,
    /// Entries whose tar headers contradict the zTOC.
    pub refused_entries: u64,
    /// Bytes given to readers.
    pub served_bytes: u64,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
