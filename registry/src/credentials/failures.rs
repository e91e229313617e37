//! Credential helpers that failed: each is logged once, left alone for a while, and named when a registry refuses.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a helper that failed is left alone. It may take half a minute to fail, and lazy reads wait for it.
const LEAVE_ALONE: Duration = Duration::from_secs(30);
/// Failures that are remembered: of every helper for every registry.
const MAX_FAILURES: usize = 256;

/// The failures of the helpers of one configuration.
#[derive(Debug, Default)]
pub(super) struct HelperFailures(Mutex<HashMap<Asked, Failure>>);

/// The helper's name, and the registry that a login was wanted for.
type Asked = (String, String);

#[derive(Debug)]
struct Failure {
    at: Instant,
    why: String,
}

impl HelperFailures {
    fn all(&self) -> MutexGuard<'_, HashMap<Asked, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the helper has just failed for this registry.
    pub(super) fn is_recent(&self, name: &str, host: &str) -> bool {
        let all = self.all();
        all.get(&(name.to_owned(), host.to_owned())).is_some_and(|failure| failure.at.elapsed() < LEAVE_ALONE)
    }

    /// Remembers a failure, and logs it if the helper has not failed before.
    pub(super) fn note(&self, name: &str, host: &str, why: String) {
        let mut all = self.all();
        if all.len() >= MAX_FAILURES {
            all.clear();
        }
        if !all.keys().any(|(failed, _)| failed == name) {
            tracing::warn!(host, "{why}; going on without it");
        }
        all.insert((name.to_owned(), host.to_owned()), Failure { at: Instant::now(), why });
    }

    /// The helper has answered.
    pub(super) fn forget(&self, name: &str, host: &str) {
        self.all().remove(&(name.to_owned(), host.to_owned()));
    }

    /// What helpers said when a login for `host` was wanted last.
    pub(super) fn of_host(&self, host: &str) -> Option<String> {
        let all = self.all();
        let of_host = all.iter().filter(|((_, wanted), _)| wanted == host);
        of_host.max_by_key(|(_, failure)| failure.at).map(|(_, failure)| failure.why.clone())
    }
}
