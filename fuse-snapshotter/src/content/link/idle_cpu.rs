//! Whether the processors have nothing better to do.
//!
//! A program that starts computes with all of them, between its last read and the moment in which it is ready. To
//! inflate what nobody has asked for takes them away from it, and no priority would help: the program runs in a control
//! group of its own, which shares with the daemon's in equal parts.

use std::time::{Duration, Instant};

/// Time over which it is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// How long busy processors are waited for: they may be busy for ever.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the processors have done since the system was started, in ticks of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
    processors: u64,
}

impl Ticks {
    fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Reads `/proc/stat`, see proc_stat(5).
    fn parse(stat: &str) -> Option<Self> {
        let mut lines = stat.lines();
        let sum = lines.next()?.strip_prefix("cpu ")?;
        // Guests count as users, too.
        let ticks: Vec<u64> =
            sum.split_ascii_whitespace().take(8).map_while(|text| text.parse().ok()).collect();
        let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
        let all = ticks.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
        let processors = lines.take_while(|line| line.starts_with("cpu")).count() as u64;
        Some(Self { idle, all, processors })
    }

    /// Whether half a processor or more was free since then.
    fn was_free_since(&self, before: &Self) -> bool {
        let idle = self.idle.saturating_sub(before.idle);
        let all = self.all.saturating_sub(before.all);
        idle.saturating_mul(self.processors.max(1)).saturating_mul(2) >= all
    }
}

/// Waits until a processor is free, but not for ever.
pub(crate) async fn free() {
    let given_up = Instant::now() + PATIENCE;
    let Some(mut before) = Ticks::now() else { return };
    while Instant::now() < given_up {
        tokio::time::sleep(SAMPLE).await;
        match Ticks::now() {
            Some(now) if !now.was_free_since(&before) => before = now,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_processor_is_enough() {
        let before = Ticks { idle: 105, all: 125, processors: 2 };
        let stat = "cpu  10 0 10 100 5 0 0 0 7 0\ncpu0 5 0 5 50 5\ncpu1 5 0 5 50 0\nintr 5";
        assert_eq!(Ticks::parse(stat), Some(before));
        let after = |busy: u64, idle: u64| Ticks { idle: 105 + idle, all: 125 + busy + idle, ..before };
        assert!(after(15, 5).was_free_since(&before));
        assert!(!after(16, 4).was_free_since(&before));
        assert!(after(0, 20).was_free_since(&before) && before.was_free_since(&before));
        assert_eq!(Ticks::parse("cpu"), None);
        assert_eq!(Ticks::parse("cpu  1 2 x"), None);
        assert!(Ticks::now().is_some_and(|now| now.processors > 0));
    }
}
