//! The record of requests.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// Which of the two listeners a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listener {
    /// The registry.
    Main,
    /// The storage host that blobs are redirected to.
    Redirect,
}

/// One recorded request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query as sent.
    pub query: Option<String>,
    /// First and last byte of a `Range` with one range; the last is `u64::MAX` in `bytes=5-`.
    pub range: Option<(u64, u64)>,
    /// The status of the answer; 0 as long as there is none, and for ever if the connection was dropped.
    pub status: u16,
    /// Bytes of the body handed to the connection so far.
    pub body_bytes_sent: u64,
    /// Whether there was an `Authorization` header.
    pub had_authorization: bool,
    /// Which listener it came to.
    pub listener: Listener,
    /// Which connection it came on, counted from 1 over both listeners.
    pub connection: u64,
    /// When its connection was accepted.
    pub connected: Instant,
    /// When its headers had arrived.
    pub time: Instant,
    /// When the last byte of the answer was handed to the connection, or the connection was gone before.
    pub ended: Option<Instant>,
    /// All headers as sent, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The first header of this name, which must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The longest chain of requests each of which arrived after the one before it had been answered: as many round trips were
/// made one after the other. The chain with the earliest ends is one of the longest, as with any intervals.
pub fn longest_chain<'r>(requests: impl IntoIterator<Item = &'r Request>) -> Vec<&'r Request> {
    let mut requests: Vec<_> = requests.into_iter().filter(|request| request.ended.is_some()).collect();
    requests.sort_by_key(|request| request.ended);
    let mut chain: Vec<&Request> = Vec::new();
    for request in requests {
        if chain.last().is_none_or(|last| last.ended <= Some(request.time)) {
            chain.push(request);
        }
    }
    chain
}

/// A request with the parts that change while it is answered.
#[derive(Debug)]
pub(super) struct Entry {
    request: Request,
    status: AtomicU16,
    sent: AtomicU64,
    ended: OnceLock<Instant>,
}

impl Entry {
    /// Nothing more is sent. Only the first time counts.
    pub(super) fn end(&self) {
        self.ended.get_or_init(Instant::now);
    }

    pub(super) fn set_status(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// All requests, and totals.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Mutex<Vec<Arc<Entry>>>,
    bytes: AtomicU64,
    connections: AtomicU64,
}

impl Log {
    pub(super) fn begin(&self, request: Request) -> Arc<Entry> {
        let (status, sent, ended) = (AtomicU16::new(0), AtomicU64::new(0), OnceLock::new());
        let entry = Arc::new(Entry { request, status, sent, ended });
        self.entries.lock().unwrap().push(Arc::clone(&entry));
        entry
    }

    pub(super) fn sent(&self, entry: &Entry, bytes: u64) {
        entry.sent.fetch_add(bytes, Ordering::SeqCst);
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// The number of the connection that has just been accepted.
    pub(super) fn connected(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        let entries = self.entries.lock().unwrap();
        let snapshot = |e: &Arc<Entry>| Request {
            status: e.status.load(Ordering::SeqCst),
            body_bytes_sent: e.sent.load(Ordering::SeqCst),
            ended: e.ended.get().copied(),
            ..e.request.clone()
        };
        entries.iter().map(snapshot).collect()
    }

    pub(super) fn clear(&self) {
        self.entries.lock().unwrap().clear();
        self.bytes.store(0, Ordering::SeqCst);
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}
