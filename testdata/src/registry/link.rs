//! A link that all responses share.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// How far behind its schedule the link may catch up. Timers are late by a millisecond or two, more on a busy machine;
/// without this every late timer would be bandwidth lost, and with much more an idle link would save up a burst.
const SLACK: Duration = Duration::from_millis(10);

/// Sends bytes one after the other at a fixed rate, whoever they belong to.
#[derive(Debug)]
pub(super) struct Link {
    bytes_per_second: Option<u64>,
    /// When the last byte accepted so far has left.
    free_at: Mutex<Option<Instant>>,
}

impl Link {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(None) }
    }

    /// The most to send at once: about a millisecond's worth, so that responses take turns smoothly.
    pub(super) fn chunk(&self) -> u64 {
        self.bytes_per_second.map_or(128 << 10, |rate| (rate / 1000).clamp(512, 64 << 10))
    }

    /// Waits until `bytes` bytes have passed.
    pub(super) async fn pass(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let takes = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
        );
        let now = Instant::now();
        let done = {
            let mut free_at = self.free_at.lock().unwrap();
            let start = match *free_at {
                // Idle for longer than a late timer explains: nothing is saved up.
                Some(free) if free + SLACK < now => now,
                Some(free) => free,
                None => now,
            };
            *free_at.insert(start + takes)
        };
        if done > now {
            tokio::time::sleep_until(done).await;
        }
    }
}
