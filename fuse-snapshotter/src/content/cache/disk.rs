//! Whether the disk takes what is written to it.
//!
//! A cache is not worth a failed read: what the disk does not take is kept in memory for those who wait for it, and the
//! cache makes room for others below its own limit.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::base::lock::lock;

/// After so much time without a failure an outage is over. A disk that fills up takes some writes and refuses others.
const CALM: Duration = Duration::from_secs(60);

/// How long what could not be read back is not written to the disk again.
const DISTRUST: Duration = Duration::from_secs(60);

/// The disk that a cache is on.
#[derive(Debug, Default)]
pub(super) struct Disk {
    failing: AtomicBool,
    wants_room: AtomicBool,
    /// Bytes of blocks that are in memory instead, in all layers.
    in_memory: AtomicU64,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Outage {
    began: Instant,
    failed: Instant,
    /// When something could not be read back.
    unreadable: Option<Instant>,
}

impl Disk {
    /// A write has failed. Says so once an outage.
    pub(super) fn refused(&self, directory: &Path, error: &io::Error) {
        let is_full =
            [Errno::NOSPC, Errno::DQUOT].iter().any(|full| error.raw_os_error() == Some(full.raw_os_error()));
        if is_full {
            self.wants_room.store(true, Ordering::Relaxed);
        }
        self.begin(directory, error);
    }

    /// What was written cannot be read back.
    pub(super) fn lost(&self, directory: &Path, error: &io::Error) {
        self.begin(directory, error);
        if let Some(outage) = &mut *lock(&self.outage) {
            outage.unreadable = Some(Instant::now());
        }
    }

    fn begin(&self, directory: &Path, error: &io::Error) {
        let now = Instant::now();
        let mut outage = lock(&self.outage);
        if let Some(outage) = &mut *outage {
            outage.failed = now;
            return;
        }
        tracing::warn!(layer = %directory.display(), %error,
            "the cache's disk fails or is full; what is read is answered from memory, and fetched again later");
        *outage = Some(Outage { began: now, failed: now, unreadable: None });
        self.failing.store(true, Ordering::Relaxed);
    }

    /// A write has succeeded.
    pub(super) fn took(&self) {
        if !self.failing.load(Ordering::Relaxed) {
            return;
        }
        let mut outage = lock(&self.outage);
        if let Some(over) = outage.take_if(|outage| outage.failed.elapsed() >= CALM) {
            self.failing.store(false, Ordering::Relaxed);
            tracing::info!(seconds = over.began.elapsed().as_secs(), "the cache's disk works again");
        }
    }

    /// Whether writes have failed lately.
    pub(super) fn is_failing(&self) -> bool {
        // With nobody writing, time alone ends it.
        self.failing.load(Ordering::Relaxed)
            && lock(&self.outage).as_ref().is_some_and(|outage| outage.failed.elapsed() < CALM)
    }

    /// Whether it is better not to write at all.
    pub(super) fn is_distrusted(&self) -> bool {
        let lately = |outage: &Outage| outage.unreadable.is_some_and(|when| when.elapsed() < DISTRUST);
        self.failing.load(Ordering::Relaxed) && lock(&self.outage).as_ref().is_some_and(lately)
    }

    /// Whether something did not fit since this was asked last.
    pub(super) fn takes_wish_for_room(&self) -> bool {
        self.wants_room.load(Ordering::Relaxed) && self.wants_room.swap(false, Ordering::Relaxed)
    }

    pub(super) fn in_memory(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.in_memory.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: u64) {
        self.in_memory.fetch_sub(bytes, Ordering::Relaxed);
    }
}
