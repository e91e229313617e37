//! Who may use the link, and when.
//!
//! Readers come first and wait for nobody. What is fetched without a reader waiting for it, because it follows what was read
//! or because nothing else is to be done, begins only when no reader has waited for a little while: a program that starts reads
//! again a moment after it got something, and would find the link busy. When a reader comes who needs something else, it
//! stops at once, unless it would be done before the reader's first byte can be here. What has arrived of a span by then is kept
//! (`parked`), so that nothing is fetched twice.
//!
//! Between them is what readers are expected to ask for soon. It begins once the image is pulled, and does not give way. After that
//! comes what they are likely to ask for some time: it begins in moments in which no reader waits, a span at a time, and does not
//! give way either.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::base::lock::lock;
use crate::content::link::estimate::Pace;
use crate::content::link::idle_cpu;
use crate::content::link::request_slots::{Lane, Lanes, Urgency};

/// Requests at a time to a registry over a long link. As many as it takes that some bytes come while others are asked for; of more
/// than that each connection stays slow, because congestion control sees the others' bytes as congestion.
const LANES: usize = 6;

/// Requests at a time that nobody waits for. One leaves most of a processor to the containers.
const SPARE: usize = 1;

/// Requests at a time for what a reader is expected to ask for soon. A reader who comes has to share the link with them.
const EXPECTED: usize = 3;

/// Requests at a time for what says what else is expected, beside those.
const LEADING: usize = 3;

/// Requests at a time for what is likely to be read: while the answer to one is on its way, another one's bytes come.
const LIKELY: usize = 2;

/// How long a reader waits for others to be done with their connections.
pub(crate) const LONGEST_QUEUE: Duration = Duration::from_secs(10);

/// How long what is expected waits for pulls.
const PATIENCE: Duration = Duration::from_secs(3);

/// Spans that are kept unfinished of all layers in a registry: each may take two megabytes of memory.
const PARKED: usize = 16;

/// How long no reader may have waited before the link counts as idle. A program that starts computes for tenths of a second
/// between its reads, with all processors; what nobody asked for would take them away from it.
const CALM: Duration = Duration::from_secs(1);

/// How long after the last reader has waited a program may still be starting. Until then its computing counts, too; but other
/// tests, which compute all the time, start nothing.
const STARTING: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(30) };

/// How long a first reader is waited for: a container mostly follows its image at once.
const GRACE: Duration = Duration::from_secs(1);

/// Who waits.
#[derive(Debug)]
struct Readers {
    /// Readers who wait for something.
    waiting: usize,
    /// How many have come so far who needed a request of their own.
    arrivals: u64,
    /// When the last one got what it wanted, or the first layer was opened.
    since: Instant,
    /// Layers that are being pulled.
    pulling: usize,
    /// Those who fetch what readers will ask for soon.
    expecting: usize,
}

/// The schedules of a daemon: one for each registry, since what is at the end of another link is no reason to wait.
#[derive(Debug)]
pub(crate) struct Schedules {
    connections: usize,
    of_hosts: Mutex<HashMap<String, Weak<Schedule>>>,
}

impl Schedules {
    /// At most `connections` requests to a registry at a time.
    pub(crate) fn new(connections: usize) -> Self {
        Self { connections, of_hosts: Mutex::default() }
    }

    /// The schedule of a registry, as long as somebody has it.
    pub(crate) fn of(&self, host: &str) -> Arc<Schedule> {
        let mut of_hosts = lock(&self.of_hosts);
        if let Some(schedule) = of_hosts.get(host).and_then(Weak::upgrade) {
            return schedule;
        }
        let schedule = Arc::new(Schedule::new(self.connections));
        of_hosts.retain(|_, schedule| schedule.strong_count() > 0);
        of_hosts.insert(host.to_owned(), Arc::downgrade(&schedule));
        schedule
    }
}

/// What all layers in a registry share.
#[derive(Debug)]
pub(crate) struct Schedule {
    connections: Semaphore,
    lanes: Arc<Lanes>,
    expected: Semaphore,
    leading: Semaphore,
    likely: Semaphore,
    spare: Semaphore,
    readers: watch::Sender<Readers>,
    pub(crate) pace: Pace,
    parked: Arc<AtomicUsize>,
}

/// A reader who waits.
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

/// Somebody who fetches what readers will ask for soon.
pub(crate) struct Expecting<'s>(&'s Schedule);

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        self.0.readers.send_modify(|readers| readers.expecting -= 1);
    }
}

/// A layer that is being pulled.
#[derive(Debug)]
pub struct Pulling(Arc<Schedule>);

impl Drop for Pulling {
    fn drop(&mut self) {
        self.0.readers.send_modify(|readers| readers.pulling -= 1);
    }
}

/// Room for an unfinished span.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Schedule {
    /// At most `connections` requests of readers at a time.
    pub(crate) fn new(connections: usize) -> Self {
        let readers = Readers { waiting: 0, arrivals: 0, since: Instant::now(), pulling: 0, expecting: 0 };
        Self {
            connections: Semaphore::new(connections),
            lanes: Lanes::new(LANES.min(connections)),
            expected: Semaphore::new(EXPECTED),
            leading: Semaphore::new(LEADING),
            likely: Semaphore::new(LIKELY),
            spare: Semaphore::new(SPARE),
            readers: watch::Sender::new(readers),
            pace: Pace::default(),
            parked: Arc::default(),
        }
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

    /// How many readers have come so far who needed a request.
    pub(crate) fn arrivals(&self) -> u64 {
        self.readers.borrow().arrivals
    }

    /// Waits for a free connection. Not for ever: those who have all of them may themselves be waiting, for a registry that does
    /// not answer, and the time that a reader may have to wait for it counts from his own request.
    pub(crate) async fn connection(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(LONGEST_QUEUE, self.connections.acquire()).await.ok()?.ok()
    }

    /// Waits for a lane over a long link, in the order of the calls; how urgent it is may change while it waits.
    pub(crate) fn lane<U: Fn() -> Urgency + Send>(
        &self,
        urgency: U,
    ) -> impl Future<Output = Option<Lane>> + Send + use<U> {
        // Each reader who comes changes this.
        self.lanes.take(urgency, self.readers.subscribe())
    }

    /// How many lanes are taken.
    pub(crate) fn busy_lanes(&self) -> usize {
        self.lanes.busy()
    }

    /// How many lanes there are.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.count()
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

    /// Waits for a turn to fetch what a reader will ask for soon. It does not give way: the reader would only have to wait for
    /// it himself.
    pub(crate) async fn expected(&self, urgency: Urgency) -> Option<SemaphorePermit<'_>> {
        let turns = if urgency == Urgency::Leading { &self.leading } else { &self.expected };
        let permit = turns.acquire().await.ok();
        self.pulled().await;
        permit
    }

    /// Waits until no layer is being pulled, but not for long: no container starts before its image is there, but others may be
    /// pulled all the time.
    pub(crate) async fn pulled(&self) {
        let mut readers = self.readers.subscribe();
        let _ = tokio::time::timeout(PATIENCE, readers.wait_for(|readers| readers.pulling == 0)).await;
    }

    /// Says that a layer is being pulled, as long as the result lives.
    pub(crate) fn pulling(self: &Arc<Self>) -> Pulling {
        self.readers.send_modify(|readers| readers.pulling += 1);
        Pulling(Arc::clone(self))
    }

    /// Waits for a turn to fetch what nobody waits for, until no reader has waited for a while, nor is a program that starts
    /// likely to compute.
    pub(crate) async fn spare(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.spare.acquire().await.ok();
        self.calm().await;
        if self.readers.borrow().since.elapsed() < STARTING {
            idle_cpu::free().await;
            self.calm().await;
        }
        permit
    }

    /// Waits for a turn to fetch what is likely to be read some time soon, until no reader waits, nor is any expected.
    pub(crate) async fn likely(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.likely.acquire().await.ok();
        // In pieces, a reader overtakes it.
        let overtakes = self.pace.piece().is_some();
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

    /// Waits until a reader waits who came after the `arrival`-th and needs a request of its own.
    pub(crate) async fn disturbed(&self, arrival: u64) {
        let other = |readers: &Readers| readers.arrivals > arrival && readers.waiting > 0;
        let _ = self.readers.subscribe().wait_for(other).await;
    }

    /// Whether such a reader waits now.
    pub(crate) fn is_disturbed(&self, arrival: u64) -> bool {
        let readers = self.readers.borrow();
        readers.arrivals > arrival && readers.waiting > 0
    }

    /// Room to keep an unfinished span, if there is some.
    pub(crate) fn room(&self) -> Option<Counted> {
        let taken = self.parked.fetch_update(Ordering::AcqRel, Ordering::Acquire, |parked| {
            (parked < PARKED).then_some(parked + 1)
        });
        taken.ok().map(|_| Counted(Arc::clone(&self.parked)))
    }
}
