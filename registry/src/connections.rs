//! Which of several connections to a server a request uses: the quickest one that is idle.
//!
//! Connections over a long link differ for seconds: one that began alone sends hundreds of packets in a round trip, and those that
//! began beside others a few dozen, because congestion control takes the others' bytes for a full link. A pool that gives out
//! the connection that was used last prefers the slow ones, which are always the last to end. So connections have numbers
//! here, each number has a pool of its own ([`crate::tls`]), and what was carried under a number says when it is used again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use url::Url;

use crate::tls::server;

/// Connections to a server that are told apart, at most; others are taken from a common pool.
const MAX_NUMBERS: usize = 16;

/// Servers whose connections are told apart. Redirects could name any number of them.
const MAX_SERVERS: usize = 32;

/// A body shorter than this says little about its connection, in bytes: most of its time was the round trip.
const TELLING: u64 = 64 << 10;

/// How long a connection may take to be in its pool after the end of a body was seen. A request that came sooner would
/// use another one, which begins slowly.
const RETURN: Duration = Duration::from_millis(1);

/// If the head of an answer takes less time than this, a new connection is quick at once.
const LONG: Duration = Duration::from_millis(5);

/// After this time without use nothing is known about a connection: congestion control forgets, and servers close it.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A connection that was used so shortly before is surely open.
const FRESH: Duration = Duration::from_secs(3);

/// What is known of the connections to all servers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<String, Vec<Connection>>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Connection {
    busy: bool,
    /// Bytes a second, from the request to the end of the body; 0 if not known.
    rate: f64,
    /// From the last request to the head of its answer.
    answer: Duration,
    /// The shortest time from a request to the head of its answer when it was open already.
    round_trip: Option<Duration>,
    /// When the last body ended; `None` if the connection ended with it.
    ended: Option<Instant>,
    /// How often it was given up.
    generation: u64,
}

impl Connection {
    /// How long to wait until it is surely in its pool.
    fn returns_in(&self, now: Instant) -> Duration {
        let since = self.ended.map_or(RETURN, |ended| now.saturating_duration_since(ended));
        if self.answer < LONG { Duration::ZERO } else { RETURN.saturating_sub(since) }
    }
}

/// The use of a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Use {
    /// Which one it is; `None` for one that is not told apart from others.
    place: Option<Place>,
    /// When it was asked for something.
    begun: Option<Instant>,
    answer: Option<Duration>,
    /// It was surely open already.
    reused: bool,
    bytes: u64,
    /// It is there for others.
    ended: bool,
}

#[derive(Debug)]
struct Place {
    all: Connections,
    server: String,
    number: usize,
    generation: u64,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The quickest idle connection to the server of `url`, or a new one, or any if there are too many. Waits a moment if it is
    /// just coming back.
    pub(crate) async fn take(&self, url: &Url) -> Use {
        let (mut taken, returns_in) = self.take_now(url);
        if !returns_in.is_zero() {
            tokio::time::sleep(returns_in).await;
        }
        taken.begun = Some(Instant::now());
        taken
    }

    /// The same, and how long to wait for it.
    fn take_now(&self, url: &Url) -> (Use, Duration) {
        let server = server(url);
        let mut servers = self.lock();
        if servers.len() >= MAX_SERVERS && !servers.contains_key(&server) {
            servers.retain(|_, connections| connections.iter().any(|connection| connection.busy));
        }
        if servers.len() >= MAX_SERVERS && !servers.contains_key(&server) {
            return (Use::of_any(), Duration::ZERO);
        }
        let connections = servers.entry(server.clone()).or_default();
        let now = Instant::now();
        for idle in connections.iter_mut().filter(|connection| !connection.busy) {
            if idle.ended.is_none_or(|ended| now.saturating_duration_since(ended) > FORGOTTEN) {
                *idle = Connection { generation: idle.generation, ..Connection::default() };
            }
        }
        let idle = connections.iter().enumerate().filter(|(_, connection)| !connection.busy);
        let is_open = |connection: &Connection| connection.ended.is_some();
        let quickest = idle.max_by(|(_, one), (_, other)| {
            one.rate.total_cmp(&other.rate).then(is_open(one).cmp(&is_open(other)))
        });
        let number = match quickest {
            Some((number, _)) => number,
            None if connections.len() >= MAX_NUMBERS => return (Use::of_any(), Duration::ZERO),
            None => {
                connections.push(Connection::default());
                connections.len() - 1
            }
        };
        connections[number].busy = true;
        let Connection { generation, ended, .. } = connections[number];
        let returns_in = connections[number].returns_in(now);
        drop(servers);
        let reused = ended.is_some_and(|ended| now.saturating_duration_since(ended) < FRESH);
        let place = Place { all: self.clone(), server, number, generation };
        (Use { place: Some(place), reused, ..Use::of_any() }, returns_in)
    }

    /// Whether there is an idle connection to the server of `url` that is likely to be open.
    pub(crate) fn has_idle(&self, url: &Url) -> bool {
        let servers = self.lock();
        let mut all = servers.get(&server(url)).into_iter().flatten();
        all.any(|connection| {
            !connection.busy && connection.ended.is_some_and(|ended| ended.elapsed() <= FORGOTTEN)
        })
    }

    /// The shortest time that the server of `url` took to answer over a connection that was open already.
    pub(crate) fn round_trip(&self, url: &Url) -> Option<Duration> {
        let servers = self.lock();
        let all = servers.get(&server(url)).into_iter().flatten();
        all.filter_map(|connection| connection.round_trip).min()
    }

    /// Forgets what is known about the connections to the server of `url`: they are given up.
    pub(crate) fn forget(&self, url: &Url) {
        for connection in self.lock().get_mut(&server(url)).into_iter().flatten() {
            let Connection { busy, generation, .. } = *connection;
            *connection = Connection { busy, generation: generation + 1, ..Connection::default() };
        }
    }
}

impl Use {
    /// That of a connection which is not told apart from others.
    pub(crate) fn of_any() -> Self {
        Self { place: None, begun: None, answer: None, reused: false, bytes: 0, ended: false }
    }

    /// The number of the connection, if it has one.
    pub(crate) fn number(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.number)
    }

    /// Notes that the head of the answer is here.
    pub(crate) fn answered(&mut self) {
        self.answer = self.begun.map(|begun| begun.elapsed());
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
        let Some(Place { all, server, number, generation }) = &self.place else { return };
        let mut servers = all.lock();
        let Some(connection) = servers.get_mut(server).and_then(|all| all.get_mut(*number)) else { return };
        connection.busy = false;
        let Some(begun) = self.begun.filter(|_| connection.generation == *generation) else { return };
        if !self.ended {
            // It was closed.
            *connection = Connection { generation: *generation, ..Connection::default() };
            return;
        }
        connection.ended = Some(Instant::now());
        connection.answer = self.answer.unwrap_or(connection.answer);
        let round_trip = self.answer.filter(|_| self.reused);
        connection.round_trip = [connection.round_trip, round_trip].into_iter().flatten().min();
        if self.bytes >= TELLING {
            let rate = self.bytes as f64 / begun.elapsed().as_secs_f64().max(1e-6);
            connection.rate = if connection.rate > 0.0 { f64::midpoint(connection.rate, rate) } else { rate };
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn url(server: &str) -> Url {
        Url::parse(&format!("http://{server}/v2/x")).unwrap()
    }

    fn before(time: Duration) -> Instant {
        Instant::now().checked_sub(time).unwrap()
    }

    /// Carries so many bytes.
    fn carry(mut used: Use, bytes: u64, time: Duration) {
        used.begun = Some(before(time));
        used.note(bytes as usize);
        used.end();
    }

    #[tokio::test]
    async fn the_quickest_idle_connection_is_taken() {
        let all = Connections::default();
        let take = async || all.take(&url("one")).await;
        let (slow, quick, third) = (take().await, take().await, take().await);
        assert_eq!([slow.number(), quick.number(), third.number()], [Some(0), Some(1), Some(2)]);
        carry(slow, 1 << 20, SECOND);
        carry(quick, 4 << 20, SECOND);
        carry(third, 2 << 20, SECOND);
        // A short body says nothing about how quick a connection is.
        let quickest = take().await;
        assert_eq!(quickest.number(), Some(1));
        carry(quickest, 1000, SECOND);
        let quickest = take().await;
        assert_eq!(quickest.number(), Some(1));
        assert_eq!(take().await.number(), Some(2));
        // What breaks is the last, and so is what was given up while it was used, or long ago.
        drop(quickest);
        let order = async || {
            let (first, second, third) = (take().await, take().await, take().await);
            let numbers = [&first, &second, &third].map(Use::number);
            [first, second, third].into_iter().for_each(|mut taken| taken.end());
            numbers
        };
        assert_eq!(order().await[..1], [Some(0)]);
        carry(take().await, 8 << 20, SECOND);
        assert_eq!(order().await[..1], [Some(0)]);
        all.forget(&url("other"));
        assert_eq!(order().await[..1], [Some(0)]);
        let (quickest, _) = (take().await, assert!(all.has_idle(&url("one"))));
        assert_eq!(quickest.number(), Some(0));
        all.forget(&url("one"));
        assert!(!all.has_idle(&url("one")));
        carry(quickest, 8 << 20, SECOND);
        assert!(!all.has_idle(&url("one")));
        carry(take().await, 1 << 20, SECOND);
        assert!(all.has_idle(&url("one")));
    }

    #[test]
    fn what_has_just_ended_over_a_long_link_is_waited_for() {
        let all = Connections::default();
        let mut taken = all.take_now(&url("one")).0;
        taken.begun = Some(before(SECOND));
        taken.answered();
        taken.end();
        drop(taken);
        let ended = |since: Duration, answer: Duration| {
            Connection { ended: Some(before(since)), answer, ..Connection::default() }
                .returns_in(before(Duration::ZERO))
        };
        let known = all.lock().values().next().unwrap()[0];
        assert!(known.answer >= SECOND && known.returns_in(known.ended.unwrap()) == RETURN);
        // That was the time to connect, too.
        assert_eq!(all.round_trip(&url("one")), None);
        assert_eq!(ended(RETURN, SECOND), Duration::ZERO);
        assert_eq!(ended(Duration::ZERO, LONG / 2), Duration::ZERO);
        for time in [SECOND / 2, SECOND] {
            let mut reused = all.take_now(&url("one")).0;
            reused.begun = Some(before(time));
            reused.answered();
            reused.end();
        }
        let round_trip = all.round_trip(&url("one")).unwrap();
        assert!((SECOND / 2..SECOND).contains(&round_trip) && all.round_trip(&url("two")).is_none());
        let known = all.lock().values().next().unwrap()[0];
        // Nobody has asked it for anything: it is as it was.
        drop(all.take_now(&url("one")));
        assert_eq!(all.lock().values().next().unwrap()[0].answer, known.answer);
        // Nothing comes back of what broke.
        let (mut broken, _) = all.take_now(&url("one"));
        broken.begun = Some(before(SECOND));
        drop(broken);
        assert_eq!(all.take_now(&url("one")).1, Duration::ZERO);
    }

    #[tokio::test]
    async fn numbers_and_servers_are_bounded() {
        let all = Connections::default();
        let taken: Vec<_> = (0..MAX_NUMBERS * 2).map(|_| all.take_now(&url("one")).0).collect();
        let numbers: Vec<_> = taken.iter().filter_map(Use::number).collect();
        assert_eq!(numbers, (0..MAX_NUMBERS).collect::<Vec<_>>());
        let others: Vec<_> =
            (0..MAX_SERVERS * 2).map(|number| all.take_now(&url(&format!("s{number}"))).0).collect();
        assert_eq!(others.iter().filter(|taken| taken.number().is_some()).count(), MAX_SERVERS - 1);
        // Those that nobody uses make room.
        drop(others);
        for number in 0..MAX_SERVERS * 2 {
            assert_eq!(all.take(&url(&format!("s{number}"))).await.number(), Some(0));
        }
        assert!(all.lock().len() <= MAX_SERVERS);
    }
}
