//! Who waits for a registry, and when others may begin.
//!
//! * A reader comes first and waits for nobody.
//! * What readers are expected to ask for soon begins once the image is pulled, and does not give way.
//! * Speculative fetches begin, a span at a time, in moments in which no reader waits, and do not give way either.
//! * Background fetch begins only when no reader has waited for a little while: a program that starts reads again a
//!   moment after it got something, and would find the link busy. When a reader comes that needs something else,
//!   background fetch stops at once, unless it would be done before the reader's first byte can be here.

use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::idle_cpu;
use super::priority::Priority;

/// Background requests at a time. One leaves most of a processor to the containers.
const BACKGROUND: usize = 1;

/// Requests at a time for what a reader is expected to ask for soon. A reader that comes has to share the link with
/// them.
const EXPECTED: usize = 3;

/// Requests at a time for what tells what else is expected, beside those.
const DISCOVERY: usize = 3;

/// Speculative requests at a time: while the answer to one is on its way, another one's bytes come.
const SPECULATIVE: usize = 2;

/// How long what is expected waits for pulls.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long no reader may have waited before the link counts as idle. A program that starts computes for tenths of a
/// second between its reads, with all processors; background fetch would take them away from it.
const CALM: Duration = Duration::from_secs(1);

/// For this long after the last reader has waited, background fetch also waits for an idle processor: a program may
/// still be starting. Zero in tests, which keep all processors busy.
const STARTING: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(30) };

/// How long a first reader is waited for: a container mostly follows its image at once.
const GRACE: Duration = Duration::from_secs(1);

/// Who waits.
#[derive(Debug)]
struct Readers {
    /// Readers that wait for something.
    waiting: usize,
    /// How many have come so far that needed a request of their own.
    arrivals: u64,
    /// When the last one got what it wanted, or the first layer was opened.
    since: Instant,
    /// Layers that are being pulled.
    pulling: usize,
    /// Those that fetch what readers will ask for soon.
    expecting: usize,
}

/// The turns of all layers in a registry.
#[derive(Debug)]
pub(crate) struct Schedule {
    expected: Semaphore,
    discovery: Semaphore,
    speculative: Semaphore,
    background: Semaphore,
    readers: watch::Sender<Readers>,
}

/// A reader that waits.
pub(crate) struct Waiting<'s> {
    schedule: &'s Schedule,
    /// How many readers had come until then.
    pub(crate) arrival: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.schedule.readers.send_modify(|readers| {
            readers.waiting -= 1;
            // Also if the first one was waited for.
            readers.since = Instant::now();
        });
    }
}

/// Somebody that fetches what readers will ask for soon.
pub(crate) struct Expecting<'s>(&'s Schedule);

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        self.0.readers.send_modify(|readers| readers.expecting -= 1);
    }
}

impl Schedule {
    pub(super) fn new() -> Self {
        let readers = Readers { waiting: 0, arrivals: 0, since: Instant::now(), pulling: 0, expecting: 0 };
        Self {
            expected: Semaphore::new(EXPECTED),
            discovery: Semaphore::new(DISCOVERY),
            speculative: Semaphore::new(SPECULATIVE),
            background: Semaphore::new(BACKGROUND),
            readers: watch::Sender::new(readers),
        }
    }

    /// Changes with each reader that comes or goes.
    pub(super) fn changes(&self) -> watch::Receiver<impl Send + Sync + use<>> {
        self.readers.subscribe()
    }

    /// A reader begins to wait. `needs_request`: others do not fetch it already.
    pub(crate) fn enter(&self, needs_request: bool) -> Waiting<'_> {
        let mut arrival = 0;
        self.readers.send_modify(|readers| {
            readers.waiting += 1;
            readers.arrivals += u64::from(needs_request);
            arrival = readers.arrivals;
        });
        Waiting { schedule: self, arrival }
    }

    /// Something new can be read: readers will come.
    pub(crate) fn open(&self) {
        self.readers.send_modify(|readers| readers.since = readers.since.max(Instant::now() + GRACE));
    }

    /// How many readers have come so far that needed a request.
    pub(crate) fn arrivals(&self) -> u64 {
        self.readers.borrow().arrivals
    }

    /// Says that what readers will ask for soon is going to be fetched.
    pub(crate) fn expecting(&self) -> Expecting<'_> {
        self.readers.send_modify(|readers| readers.expecting += 1);
        Expecting(self)
    }

    /// Whether there is such a thing.
    pub(crate) fn is_expecting(&self) -> bool {
        self.readers.borrow().expecting > 0
    }

    /// Waits for a turn to fetch what a reader will ask for soon. It does not give way: the reader would otherwise wait
    /// for the same bytes.
    pub(crate) async fn expected_turn(&self, priority: Priority) -> Option<SemaphorePermit<'_>> {
        let turns = if priority == Priority::Discovery { &self.discovery } else { &self.expected };
        let permit = turns.acquire().await.ok();
        self.pulled().await;
        permit
    }

    /// Waits until no layer is being pulled, but not for long: no container starts before its image is there, but
    /// others may be pulled all the time.
    pub(crate) async fn pulled(&self) {
        let mut readers = self.readers.subscribe();
        let _ = tokio::time::timeout(PATIENCE, readers.wait_for(|readers| readers.pulling == 0)).await;
    }

    pub(super) fn begin_pull(&self) {
        self.readers.send_modify(|readers| readers.pulling += 1);
    }

    pub(super) fn end_pull(&self) {
        self.readers.send_modify(|readers| readers.pulling -= 1);
    }

    /// Waits for a turn to fetch what nobody waits for, until no reader has waited for a while, nor is a program that
    /// starts likely to compute.
    pub(crate) async fn background_turn(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.background.acquire().await.ok();
        self.calm().await;
        if self.readers.borrow().since.elapsed() < STARTING {
            idle_cpu::free().await;
            self.calm().await;
        }
        permit
    }

    /// Waits for a turn to fetch what may be read some time, until no reader is expected, nor waits unless its requests
    /// overtake all others.
    pub(super) async fn speculative_turn(
        &self,
        readers_overtake: impl FnOnce() -> bool,
    ) -> Option<SemaphorePermit<'_>> {
        let permit = self.speculative.acquire().await.ok();
        let overtakes = readers_overtake();
        let quiet = |readers: &Readers| {
            (overtakes || readers.waiting == 0) && readers.pulling + readers.expecting == 0
        };
        let _ = self.readers.subscribe().wait_for(quiet).await;
        permit
    }

    /// Waits until no reader has waited for a while.
    async fn calm(&self) {
        let mut readers = self.readers.subscribe();
        loop {
            // The sender lives in `self`, so this cannot fail.
            let Ok(since) = readers.wait_for(|readers| readers.waiting == 0).await.map(|idle| idle.since)
            else {
                return;
            };
            tokio::select! {
                biased;
                _ = readers.wait_for(|readers| readers.waiting > 0) => {}
                () = tokio::time::sleep_until((since + CALM).into()) => return,
            }
        }
    }

    /// Waits until a reader waits that came after the `arrival`-th and needs a request of its own.
    pub(super) async fn disturbed(&self, arrival: u64) {
        let other = |readers: &Readers| readers.arrivals > arrival && readers.waiting > 0;
        let _ = self.readers.subscribe().wait_for(other).await;
    }

    /// Whether such a reader waits now.
    pub(crate) fn is_disturbed(&self, arrival: u64) -> bool {
        let readers = self.readers.borrow();
        readers.arrivals > arrival && readers.waiting > 0
    }
}
