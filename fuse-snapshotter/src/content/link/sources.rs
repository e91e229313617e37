//! Where the bytes of a blob can be read, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use registry::BlobReader;

/// What a source turned out to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its bytes have the digest that they should have.
    Verified,
    /// Its bytes are other ones.
    Wrong,
    /// Its bytes came so slowly that they were asked for once more.
    Slow,
}

/// A place where the bytes of a blob can be read.
pub(crate) struct Source {
    pub(crate) reader: Arc<dyn BlobReader>,
    /// On this machine: it says nothing about the link.
    pub(super) is_local: bool,
    /// Requests that were begun.
    requests: AtomicU64,
    /// By [`Verdict`].
    verdicts: [AtomicU64; 3],
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} requests, {:?} verified, wrong, slow", self.requests(), self.verdicts)
    }
}

impl Source {
    fn new(reader: Arc<dyn BlobReader>, is_local: bool) -> Arc<Self> {
        Arc::new(Self { reader, is_local, requests: AtomicU64::new(0), verdicts: Default::default() })
    }

    /// A request begins.
    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Notes what came of a request.
    pub(crate) fn report(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The sources of one blob, in the order in which they are asked. There is at least one.
#[derive(Debug)]
pub(crate) struct Sources(RwLock<Vec<Arc<Source>>>);

impl Sources {
    pub(crate) fn new(reader: Arc<dyn BlobReader>) -> Self {
        Self(RwLock::new(vec![Source::new(reader, false)]))
    }

    /// All of them.
    pub(crate) fn list(&self) -> Vec<Arc<Source>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds one on this machine, which is asked before the others.
    pub(crate) fn put_local_first(&self, reader: Arc<dyn BlobReader>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(0, Source::new(reader, true));
    }

    /// Requests that were begun.
    pub(crate) fn requests(&self) -> u64 {
        self.list().iter().map(|source| source.requests()).sum()
    }
}

/// Bytes, and the source that sent them.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) from: Arc<Source>,
}

/// Who has sent the bytes of something that is verified as a whole.
#[derive(Debug, Default)]
pub(crate) struct Senders(Vec<Arc<Source>>);

impl Senders {
    pub(crate) fn add(&mut self, source: &Arc<Source>) {
        if !self.0.iter().any(|known| Arc::ptr_eq(known, source)) {
            self.0.push(Arc::clone(source));
        }
    }

    /// Reports what all of it turned out to be.
    pub(crate) fn report(self, verdict: Verdict) {
        self.0.iter().for_each(|source| source.report(verdict));
    }
}
