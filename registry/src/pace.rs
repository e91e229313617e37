//! How long a server usually takes to say something, and so after how much silence it counts as stalled.
//!
//! When everything on a link is dropped, connections do not end: they fall silent. TCP notices after minutes. Waiting for a
//! fixed time would be too long for storage that answers within milliseconds, or too short for a cache that first asks its
//! upstream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use crate::blob::straggler::Traffic;

/// So many times its usual waits is more than a server's pace explains.
const UNUSUAL: u32 = 4;
/// Servers that are remembered. Redirects could name any number of them.
const MAX_SERVERS: usize = 1000;

/// The paces of all servers that blobs are read from.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<HashMap<String, Arc<Pace>>>);

impl Paces {
    /// The pace of the server that `url` is on.
    pub(crate) fn of(&self, url: &Url) -> Arc<Pace> {
        let server = url.origin().ascii_serialization();
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= MAX_SERVERS && !paces.contains_key(&server) {
            paces.clear();
        }
        Arc::clone(paces.entry(server).or_default())
    }
}

/// What one server's longer waits are like.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// In microseconds. Longer waits count at once, shorter ones little by little.
    usual: AtomicU64,
    /// What comes from it.
    pub(crate) traffic: Traffic,
}

impl Pace {
    /// Notes how long the server took to say something.
    pub(crate) fn note(&self, waited: Duration) {
        let waited = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let usual = self.usual.load(Relaxed);
        let now = if waited > usual { waited } else { usual - (usual - waited) / 64 };
        if now != usual {
            self.usual.store(now, Relaxed);
        }
    }

    /// After how much silence the server counts as stalled: `least` or what its pace explains, twice as much after each of
    /// `failures`, and at most `most`.
    pub(crate) fn patience(&self, least: Duration, most: Duration, failures: u32) -> Duration {
        let explained = Duration::from_micros(self.usual.load(Relaxed)).saturating_mul(UNUSUAL);
        least.max(explained).saturating_mul(2_u32.saturating_pow(failures)).min(most)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    #[test]
    fn slow_servers_and_failures_earn_patience_up_to_the_limit() {
        const SECOND: Duration = Duration::from_secs(1);
        let (pace, most) = (Pace::default(), 30 * SECOND);
        let patience = |failures| pace.patience(3 * SECOND, most, failures);
        assert_eq!([patience(0), patience(1), patience(2), patience(9)], [3, 6, 12, 30].map(|n| n * SECOND));
        pace.note(SECOND / 10);
        assert_eq!(patience(0), 3 * SECOND);
        pace.note(2 * SECOND);
        assert_eq!(patience(0), 8 * SECOND);
        for _ in 0..1000 {
            pace.note(SECOND / 10);
        }
        assert_eq!(patience(0), 3 * SECOND);
        pace.note(Duration::MAX);
        assert_eq!(patience(0), most);
    }

    #[test]
    fn servers_have_paces_of_their_own() {
        let paces = Paces::default();
        let of = |url: &str| paces.of(&Url::parse(url).unwrap());
        of("https://a/v2/x?y=1").note(Duration::from_secs(5));
        assert_eq!(of("https://a:443/z").usual.load(Relaxed), 5_000_000);
        assert_eq!(of("http://a/z").usual.load(Relaxed), 0);
    }
}
