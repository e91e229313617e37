//! Which of several connections to a server a request uses: the quickest one that is idle.
//!
//! Connections over a long link differ for seconds: one that began alone sends hundreds of packets in a round trip, and those that
//! began beside others a few dozen, because congestion control takes the others' bytes for a full link. A pool that gives out
//! the connection that was used last prefers the slow ones, which are always the last to end. So each connection has a number
//! here and a pool of its own ([`crate::tls`]), and what it has carried says when it is used again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use url::Url;

/// Connections to a server that are told apart, at most; others are taken from a common pool.
const MAX_NUMBERS: usize = 16;

/// Servers whose connections are told apart. Redirects could name any number of them.
const MAX_SERVERS: usize = 32;

/// A body shorter than this says little about its connection, in bytes: most of its time was the round trip.
const TELLING: u64 = 64 << 10;

/// How long a connection may take to be in its pool after the end of a body was seen. A request that came sooner would open
/// another one, which begins slowly.
const RETURN: Duration = Duration::from_millis(1);

/// After this time without use nothing is known about a connection: congestion control forgets, and servers close it.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What is known of the connections to all servers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<String, Vec<Connection>>>>);

#[derive(Debug)]
struct Connection {
    busy: bool,
    /// Bytes a second, from the request to the end of the body; 0 if not known.
    rate: f64,
    used: Instant,
}

/// The use of a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Use {
    all: Connections,
    server: String,
    number: usize,
    begun: Instant,
    bytes: u64,
    /// It is there for others.
    ended: bool,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The quickest idle connection to the server of `url`, or a new one; `None` if there are too many. Waits a moment for one
    /// that is just coming back.
    pub(crate) async fn take(&self, url: &Url) -> Option<Use> {
        if self.is_returning(url) {
            tokio::time::sleep(RETURN).await;
        }
        self.take_now(url)
    }

    /// Whether there are idle connections, but none that is surely in its pool.
    fn is_returning(&self, url: &Url) -> bool {
        let servers = self.lock();
        let connections = servers.get(&url.origin().ascii_serialization());
        let mut idle = connections.into_iter().flatten().filter(|connection| !connection.busy).peekable();
        idle.peek().is_some() && idle.all(|connection| connection.used.elapsed() < RETURN)
    }

    /// The same without waiting.
    fn take_now(&self, url: &Url) -> Option<Use> {
        let server = url.origin().ascii_serialization();
        let mut servers = self.lock();
        if servers.len() >= MAX_SERVERS && !servers.contains_key(&server) {
            servers.retain(|_, connections| connections.iter().any(|connection| connection.busy));
        }
        if servers.len() >= MAX_SERVERS && !servers.contains_key(&server) {
            return None;
        }
        let connections = servers.entry(server.clone()).or_default();
        let now = Instant::now();
        for connection in connections.iter_mut().filter(|connection| !connection.busy) {
            if now.duration_since(connection.used) > FORGOTTEN {
                connection.rate = 0.0;
            }
        }
        let idle = connections.iter().enumerate().filter(|(_, connection)| !connection.busy);
        let back = |connection: &Connection| now.duration_since(connection.used) >= RETURN;
        let quickest = idle
            .max_by(|(_, one), (_, other)| back(one).cmp(&back(other)).then(one.rate.total_cmp(&other.rate)));
        let number = match quickest {
            Some((number, _)) => number,
            None if connections.len() >= MAX_NUMBERS => return None,
            None => {
                connections.push(Connection { busy: false, rate: 0.0, used: now });
                connections.len() - 1
            }
        };
        connections[number].busy = true;
        drop(servers);
        Some(Use { all: self.clone(), server, number, begun: now, bytes: 0, ended: false })
    }
}

impl Use {
    /// The number of the connection.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Notes bytes of the body.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Notes that the end of the body was seen: the connection can be used again.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut servers = self.all.lock();
        let Some(connection) = servers.get_mut(&self.server).and_then(|all| all.get_mut(self.number)) else {
            return;
        };
        connection.busy = false;
        connection.used = Instant::now();
        if !self.ended {
            // It was closed.
            connection.rate = 0.0;
        } else if self.bytes >= TELLING {
            let rate = self.bytes as f64 / self.begun.elapsed().as_secs_f64().max(1e-6);
            connection.rate = if connection.rate > 0.0 { f64::midpoint(connection.rate, rate) } else { rate };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn url(server: &str) -> Url {
        Url::parse(&format!("http://{server}/v2/x")).unwrap()
    }

    /// Carries so many bytes, after which the connection is back in its pool.
    fn carry(mut used: Use, bytes: u64, time: Duration) {
        used.begun = Instant::now().checked_sub(time).unwrap();
        used.note(bytes as usize);
        used.end();
        drop(used);
        std::thread::sleep(RETURN * 2);
    }

    #[test]
    fn the_quickest_idle_connection_is_taken_and_one_that_broke_is_the_last() {
        let all = Connections::default();
        let take = || all.take_now(&url("one")).unwrap();
        let (slow, quick, broken) = (take(), take(), take());
        assert_eq!([slow.number(), quick.number(), broken.number()], [0, 1, 2]);
        let second = Duration::from_secs(1);
        carry(slow, 1 << 20, second);
        carry(quick, 4 << 20, second);
        drop(broken);
        std::thread::sleep(RETURN * 2);
        let (first, second_best, last) = (take(), take(), take());
        assert_eq!([first.number(), second_best.number(), last.number()], [1, 0, 2]);
        // A short body says nothing, and what breaks is forgotten.
        carry(first, 1000, second);
        assert_eq!(take().number(), 1);
        drop(take());
        std::thread::sleep(RETURN * 2);
        carry(last, 1 << 20, second / 10);
        assert_eq!(take().number(), 2);
    }

    #[tokio::test]
    async fn what_has_just_ended_is_waited_for_and_numbers_are_bounded() {
        let all = Connections::default();
        let mut ended = all.take(&url("one")).await.unwrap();
        ended.end();
        drop(ended);
        assert!(all.is_returning(&url("one")) && !all.is_returning(&url("other")));
        let one = all.take(&url("one")).await.unwrap();
        assert_eq!(one.number(), 0);
        let taken: Vec<_> = std::iter::from_fn(|| all.take_now(&url("one"))).collect();
        assert_eq!(taken.len(), MAX_NUMBERS - 1);
        let others: Vec<_> =
            (0..MAX_SERVERS * 2).filter_map(|n| all.take_now(&url(&format!("s{n}")))).collect();
        assert_eq!(others.len(), MAX_SERVERS - 1);
        drop(others);
        assert!(all.take_now(&url("another")).is_some());
        assert!(all.lock().len() <= MAX_SERVERS);
    }
}
