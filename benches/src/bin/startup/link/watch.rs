//! What a link carries over time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Direction;

/// One count each.
const INTERVAL: Duration = Duration::from_millis(100);

/// Counts what a direction of a link carries, from one moment to another.
pub(crate) struct Watch {
    ended: Arc<AtomicBool>,
    counts: Option<JoinHandle<Vec<u64>>>,
}

impl Watch {
    pub(super) fn start(direction: Arc<Direction>, began: Instant) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        let counts = std::thread::spawn(move || {
            let mut counts = Vec::new();
            let mut before = direction.bytes.load(Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                let due = began + INTERVAL * (counts.len() as u32 + 1);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let now = direction.bytes.load(Ordering::Relaxed);
                counts.push(now - before);
                before = now;
            }
            counts
        });
        Self { ended, counts: Some(counts) }
    }

    /// The bytes of each tenth of a second until now.
    pub(crate) fn end(mut self) -> Vec<u64> {
        self.ended.store(true, Ordering::Relaxed);
        self.counts.take().and_then(|counts| counts.join().ok()).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
