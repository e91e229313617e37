//! Counters of requests and bytes: what a read really costs on the wire.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Counters at one moment; take two and subtract to measure something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// HTTP requests sent, with redirects, retries and token requests.
    pub requests: u64,
    /// Bytes of response bodies received.
    pub bytes_received: u64,
    /// Bytes of request bodies sent.
    pub bytes_sent: u64,
    /// Requests sent again after a transient failure.
    pub retries: u64,
    /// Redirects followed.
    pub redirects: u64,
    /// Tokens fetched from a token server.
    pub token_requests: u64,
    /// Answers to range requests that held the whole content (status 200).
    pub ranges_ignored: u64,
    /// Bodies that broke off and were continued with a new range request.
    pub resumed: u64,
}

/// The counters themselves; a blob's also count for its client.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    parent: Option<Arc<Counters>>,
    requests: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    retries: AtomicU64,
    redirects: AtomicU64,
    token_requests: AtomicU64,
    ranges_ignored: AtomicU64,
    resumed: AtomicU64,
    /// When a server said something last, in milliseconds after [`EPOCH`]; 0 for never.
    heard: AtomicU64,
}

/// Some moment before the first request.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

macro_rules! counted {
    ($($name:ident => $field:ident),* $(,)?) => {
        $(pub(crate) fn $name(&self, n: u64) {
            self.$field.fetch_add(n, Relaxed);
            if let Some(parent) = &self.parent {
                parent.$name(n);
            }
        })*
    };
}

impl Counters {
    pub(crate) fn child_of(parent: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self { parent: Some(parent.clone()), ..Self::default() })
    }

    counted! {
        add_requests => requests,
        add_received => bytes_received,
        add_sent => bytes_sent,
        add_retries => retries,
        add_redirects => redirects,
        add_token_requests => token_requests,
        add_ranges_ignored => ranges_ignored,
        add_resumed => resumed,
    }

    /// A server said something.
    pub(crate) fn note_heard(&self) {
        self.heard.store((EPOCH.elapsed().as_millis() as u64).max(1), Relaxed);
        if let Some(parent) = &self.parent {
            parent.note_heard();
        }
    }

    pub(crate) fn heard_within(&self, time: Duration) -> bool {
        let heard = self.heard.load(Relaxed);
        heard > 0 && EPOCH.elapsed() <= Duration::from_millis(heard) + time
    }

    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            requests: self.requests.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            retries: self.retries.load(Relaxed),
            redirects: self.redirects.load(Relaxed),
            token_requests: self.token_requests.load(Relaxed),
            ranges_ignored: self.ranges_ignored.load(Relaxed),
            resumed: self.resumed.load(Relaxed),
        }
    }
}
