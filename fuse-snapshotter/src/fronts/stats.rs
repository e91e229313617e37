//! Counts of the kernel's requests.

use std::sync::atomic::{AtomicU64, Ordering};

use super::forest::OperationCounts;

/// Counts of what the kernel asked of one mounted file system.
#[derive(Debug, Default)]
pub struct FuseStats {
    requests: AtomicU64,
    reads: AtomicU64,
    misses: AtomicU64,
    failures: OperationCounts,
}

impl FuseStats {
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a read, which is a request, too.
    pub(super) fn count_read(&self) {
        self.count_request();
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of every kind.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Read requests.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Read requests that had to wait for the network.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Requests that failed though the question was right, by operation.
    pub fn failures(&self) -> &OperationCounts {
        &self.failures
    }
}
