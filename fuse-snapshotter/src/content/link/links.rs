//! The links of a daemon: one to each registry, shared by all layers that come from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::estimate::LinkEstimate;
use super::priority::Priority;
use super::request_slots::{LONGEST_QUEUE, RequestSlots, Slot};
use super::schedule::Schedule;
use crate::base::lock::lock;

/// Requests at a time to a registry over a long link. As many as it takes that some bytes come while others are asked
/// for; of more than that each connection stays slow, because congestion control sees the others' bytes as congestion.
const SLOTS: usize = 6;

/// Spans that are kept unfinished of all layers in a registry: each may take two megabytes of memory.
const UNFINISHED: usize = 16;

/// All links. There is one for each registry: an unresponsive registry never delays reads from another.
#[derive(Debug)]
pub(crate) struct Links {
    connections: usize,
    of_hosts: Mutex<HashMap<String, Weak<Link>>>,
}

impl Links {
    /// At most `connections` requests to a registry at a time.
    pub(crate) fn new(connections: usize) -> Self {
        Self { connections, of_hosts: Mutex::default() }
    }

    /// The link to the registry at this host; it is the same as long as somebody has it.
    pub(crate) fn of(&self, host: &str) -> Arc<Link> {
        let mut of_hosts = lock(&self.of_hosts);
        if let Some(link) = of_hosts.get(host).and_then(Weak::upgrade) {
            return link;
        }
        let link = Arc::new(Link::new(self.connections));
        of_hosts.retain(|_, link| link.strong_count() > 0);
        of_hosts.insert(host.to_owned(), Arc::downgrade(&link));
        link
    }
}

/// The way to one registry.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) estimate: LinkEstimate,
    pub(crate) schedule: Schedule,
    pub(super) slots: Arc<RequestSlots>,
    connections: Semaphore,
    unfinished: Arc<Semaphore>,
}

/// A layer that is being pulled.
#[derive(Debug)]
pub struct Pulling(Arc<Link>);

impl Drop for Pulling {
    fn drop(&mut self) {
        self.0.schedule.end_pull();
    }
}

impl Link {
    /// At most `connections` requests of readers at a time.
    fn new(connections: usize) -> Self {
        Self {
            estimate: LinkEstimate::default(),
            schedule: Schedule::new(),
            slots: RequestSlots::new(SLOTS.min(connections)),
            connections: Semaphore::new(connections),
            unfinished: Arc::new(Semaphore::new(UNFINISHED)),
        }
    }

    /// Whether a reader's requests overtake all others. It is so on a long link, where all come in chunks: then nothing
    /// has to give way, a request for a reader carries nothing else, and bytes that nobody wants cost more than a
    /// round trip.
    pub(crate) fn readers_overtake(&self) -> bool {
        self.estimate.chunk_size().is_some()
    }

    /// Waits for a free connection. Not for ever: those that have all of them may themselves be waiting, for a registry
    /// that does not answer, and the time that a reader may have to wait for it counts from its own request.
    pub(crate) async fn connection(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(LONGEST_QUEUE, self.connections.acquire()).await.ok()?.ok()
    }

    /// Waits for a slot over a long link, in the order of the calls; its priority may change while it waits.
    pub(super) fn slot<P: Fn() -> Priority + Send + 'static>(
        &self,
        priority: P,
    ) -> impl Future<Output = Option<Slot>> + Send + 'static + use<P> {
        // Each reader that comes changes this.
        self.slots.take(priority, self.schedule.changes())
    }

    /// Waits for a turn to fetch what may be read some time.
    pub(crate) async fn speculative_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.schedule.speculative_turn(|| self.readers_overtake()).await
    }

    /// Says that a layer is being pulled, as long as the result lives.
    pub(crate) fn pulling(self: &Arc<Self>) -> Pulling {
        self.schedule.begin_pull();
        Pulling(Arc::clone(self))
    }

    /// Room to keep an unfinished span, if there is some.
    pub(crate) fn room_for_unfinished(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.unfinished).try_acquire_owned().ok()
    }
}
