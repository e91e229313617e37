//! When to try again: exponential waits with jitter, `Retry-After`, and a bound on the time spent.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::error::{Error, Result};
use crate::stats::Counters;

/// How often and how long to try again after a transient failure (see [`Error::is_transient`]).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Tries after the first; 8.
    pub max_retries: u32,
    /// Wait before the first retry, doubled for each later one; 30 ms.
    pub min_wait: Duration,
    /// The longest wait for which a server may ask (`Retry-After`); 30 s.
    pub max_wait: Duration,
    /// The longest wait that nobody has asked for, so that work goes on soon after a link is back; 5 s.
    pub max_backoff: Duration,
    /// Up to this fraction is added to each wait at random, so that nodes that failed together do not return
    /// together; 0.25.
    pub jitter: f64,
    /// No retry starts after this much time since the first try; 300 s.
    pub max_elapsed: Duration,
    /// While a server does not answer at all, it is tried for this long at least, however few retries there are; 0 s.
    pub unreachable_for: Duration,
    /// Refusals are tried again as transient failures are, unless they are [final](Error::is_final); false.
    pub insistent: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 8,
            min_wait: Duration::from_millis(30),
            max_wait: Duration::from_secs(30),
            jitter: 0.25,
            max_backoff: Duration::from_secs(5),
            max_elapsed: Duration::from_secs(300),
            unreachable_for: Duration::ZERO,
            insistent: false,
        }
    }
}

impl RetryPolicy {
    /// Never try again.
    pub fn none() -> Self {
        Self { max_retries: 0, ..Self::default() }
    }

    /// The same policy with at most `max_retries` retries, also of what does not answer.
    pub fn at_most(&self, max_retries: u32) -> Self {
        Self {
            max_retries: self.max_retries.min(max_retries),
            unreachable_for: Duration::ZERO,
            ..self.clone()
        }
    }

    /// Tries until `deadline` has passed, every few seconds, whatever the answer unless it is final: for content that
    /// somebody depends on, and cannot ask for again.
    pub fn persistent(deadline: Duration) -> Self {
        let max_backoff = Duration::from_secs(2);
        Self { max_retries: u32::MAX, max_backoff, max_elapsed: deadline, insistent: true, ..Self::default() }
    }

    /// Begins an operation that may fail and be tried again.
    pub fn begin(&self) -> Backoff {
        Backoff::new(self.clone(), &Arc::default())
    }

    fn wait(&self, retry: u32, asked: Option<Duration>) -> Duration {
        let exponential = self.min_wait.saturating_mul(2_u32.saturating_pow(retry)).min(self.max_backoff);
        let base = exponential.max(asked.unwrap_or_default()).min(self.max_wait);
        base + base.mul_f64(self.jitter.clamp(0.0, 1.0) * fastrand::f64())
    }
}

/// Shortest wait after a refused login: directories lock accounts that fail too often in a row.
const LOGIN_WAIT: Duration = Duration::from_secs(1);

/// The state of one operation's retries.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    counters: Arc<Counters>,
    retries: u32,
    started: Instant,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy, counters: &Arc<Counters>) -> Self {
        Self { policy, counters: counters.clone(), retries: 0, started: Instant::now() }
    }

    /// Sleeps before the next try, or gives `error` back when there is to be none.
    ///
    /// # Errors
    /// `error`, if trying again is of no use, or the policy does not allow it.
    pub async fn pause(&mut self, error: Error) -> Result<()> {
        let elapsed = self.started.elapsed();
        let again = self.retries < self.policy.max_retries
            || (error.is_unreachable() && elapsed < self.policy.unreachable_for);
        let left = self.policy.max_elapsed.saturating_sub(elapsed);
        let may_pass = if self.policy.insistent { !error.is_final() } else { error.is_transient() };
        if !may_pass || !again || left.is_zero() {
            return Err(error);
        }
        let mut wait = self.policy.wait(self.retries, error.retry_after());
        if error.is_auth() {
            wait = wait.max(LOGIN_WAIT);
        }
        if wait > left {
            if error.retry_after().is_some() {
                return Err(error);
            }
            // One last time, when the time is over and not before.
            wait = left;
        }
        self.retries += 1;
        self.counters.add_retries(1);
        tracing::debug!(retry = self.retries, wait_ms = wait.as_millis() as u64, %error, "retrying request");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// As if it had failed so often already.
    pub(crate) fn after(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// How long it may still be tried.
    pub fn left(&self) -> Duration {
        self.policy.max_elapsed.saturating_sub(self.started.elapsed())
    }

    /// How often it has been tried again, since the last progress.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// Starts counting anew, after progress.
    pub fn reset(&mut self) {
        self.retries = 0;
        self.started = Instant::now();
    }
}

/// `Retry-After` as a wait from now: seconds or an HTTP date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn header(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(header("7"), Some(Duration::from_secs(7)));
        assert_eq!(header("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let wait = header(&soon).unwrap();
        assert!(wait > Duration::from_secs(57) && wait <= Duration::from_secs(60), "{wait:?}");
        assert_eq!(header("soon"), None);
        assert_eq!(header("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn waits_grow_are_capped_and_honour_the_server() {
        let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
        assert_eq!(policy.wait(0, None), Duration::from_millis(30));
        assert_eq!(policy.wait(3, None), Duration::from_millis(240));
        assert_eq!(policy.wait(60, None), policy.max_backoff);
        assert_eq!(policy.wait(0, Some(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!(policy.wait(0, Some(Duration::from_secs(86_400))), policy.max_wait);
        let jittered = RetryPolicy { jitter: 0.5, ..policy }.wait(3, None);
        assert!(jittered >= Duration::from_millis(240) && jittered <= Duration::from_millis(360));
    }
}
