//! The memory that layers in work may hold together.
//!
//! How much a layer needs is not known before it has been read: a zTOC grows with the uncompressed size and with the number
//! of files. So each layer reserves an estimate before it starts, and more while it is built. A layer that needs more than
//! is left
//!
//! * waits for the others, if no other layer is waiting in this way;
//! * else gives up, frees what it holds and starts again later, so that the one that waits can go on.
//!
//! So of those that hold memory at most one waits, and it waits for layers that do not: no deadlock. A layer that is alone
//! gets what it asks for, whatever the limit, since no waiting would help.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a layer holds beside its zTOC: chunks on their way, buffers of the decoder and of the connection, in bytes.
pub(crate) const OVERHEAD: u64 = 8 << 20;

/// Reservations grow in steps of this many bytes, so that not every chunk takes the lock.
const STEP: u64 = 1 << 20;

/// There is too little memory for this layer beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded {
    /// What it needed when it gave up, in bytes.
    pub(crate) needed: u64,
}

/// A limit in bytes, and what is reserved of it.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: u64,
    state: Mutex<State>,
    /// Something was given back.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    reserved: u64,
    holders: usize,
    /// The one reservation that waits while it holds something.
    waiting: Option<u64>,
    next_id: u64,
    #[cfg(test)]
    peak: u64,
}

impl State {
    fn add(&mut self, size: u64) {
        self.reserved += size;
        #[cfg(test)]
        {
            self.peak = self.peak.max(self.reserved);
        }
    }
}

/// Memory set aside for a layer, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    id: u64,
    size: u64,
}

impl MemoryBudget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and the numbers would be right if something did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `size` bytes are free and nobody waits for more, or nobody holds anything.
    pub(crate) async fn reserve(self: &Arc<Self>, size: u64) -> Reservation {
        self.wait_for(|state| {
            let fits = state.waiting.is_none() && state.reserved.saturating_add(size) <= self.limit;
            (fits || state.holders == 0).then(|| {
                state.add(size);
                state.holders += 1;
                state.next_id += 1;
                Reservation { budget: Arc::clone(self), id: state.next_id, size }
            })
        })
        .await
    }

    /// Tries again whenever something was given back.
    async fn wait_for<T>(&self, mut attempt: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(result) = attempt(&mut self.state()) {
                return result;
            }
            changed.await;
        }
    }
}

impl Reservation {
    /// Sees to it that at least `size` bytes are reserved.
    ///
    /// # Errors
    /// [`Crowded`] if there is no room and another layer waits already: drop this reservation, with all that it stands for,
    /// and reserve anew.
    pub(crate) async fn grow(&mut self, size: u64) -> Result<(), Crowded> {
        if size <= self.size {
            return Ok(());
        }
        let target = size.checked_next_multiple_of(STEP).unwrap_or(size);
        let more = target - self.size;
        let budget = Arc::clone(&self.budget);
        budget
            .wait_for(|state| {
                if state.reserved.saturating_add(more) <= budget.limit || state.holders == 1 {
                    state.add(more);
                    if state.waiting == Some(self.id) {
                        state.waiting = None;
                    }
                    return Some(Ok(()));
                }
                match state.waiting {
                    Some(other) if other != self.id => Some(Err(Crowded { needed: size })),
                    _ => {
                        state.waiting = Some(self.id);
                        None
                    }
                }
            })
            .await?;
        self.size = target;
        // Whoever was held up by our waiting.
        self.budget.changed.notify_waiters();
        Ok(())
    }

    /// As [`Self::grow`], from a thread that may block.
    ///
    /// # Errors
    /// As [`Self::grow`].
    pub(crate) fn grow_blocking(&mut self, size: u64) -> Result<(), Crowded> {
        if size <= self.size {
            return Ok(());
        }
        tokio::runtime::Handle::current().block_on(self.grow(size))
    }

    /// Gives back all but `size` bytes.
    pub(crate) fn shrink(&mut self, size: u64) {
        let less = self.size.saturating_sub(size);
        self.size -= less;
        self.budget.state().reserved -= less;
        self.budget.changed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        {
            let mut state = self.budget.state();
            state.reserved -= self.size;
            state.holders -= 1;
            if state.waiting == Some(self.id) {
                state.waiting = None;
            }
        }
        self.budget.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    /// Whether a future is ready after everything else had its turn.
    async fn is_ready<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        future.now_or_never()
    }

    #[tokio::test]
    async fn reservations_wait_for_room_and_one_alone_never_does() {
        let budget = MemoryBudget::new(100);
        let large = budget.reserve(1000).await;
        assert!(is_ready(&mut Box::pin(budget.reserve(1))).await.is_none());
        drop(large);
        let first = budget.reserve(60).await;
        let mut waiting = Box::pin(budget.reserve(60));
        assert!(is_ready(&mut waiting).await.is_none());
        let small = budget.reserve(40).await;
        drop(first);
        let second = is_ready(&mut waiting).await.unwrap();
        drop((small, second));
        let state = budget.state();
        assert_eq!((state.reserved, state.holders), (0, 0));
    }

    #[tokio::test]
    async fn of_two_that_need_more_one_waits_and_the_other_gives_up() {
        let limit = 10 * STEP;
        let budget = MemoryBudget::new(limit);
        let mut one = budget.reserve(5 * STEP).await;
        let mut two = budget.reserve(5 * STEP).await;
        let mut growing = Box::pin(one.grow(9 * STEP));
        assert!(is_ready(&mut growing).await.is_none());
        assert_eq!(two.grow(6 * STEP).await, Err(Crowded { needed: 6 * STEP }));
        // While one waits, nobody starts.
        two.shrink(STEP);
        let mut starting = Box::pin(budget.reserve(1));
        assert!(is_ready(&mut starting).await.is_none());
        drop(two);
        assert_eq!(is_ready(&mut growing).await, Some(Ok(())));
        drop(growing);
        let started = is_ready(&mut starting).await.unwrap();
        drop(started);
        assert_eq!(one.grow(100 * limit).await, Ok(()), "alone");
        drop(one);
        assert_eq!(budget.state().reserved, 0);
    }

    #[tokio::test]
    async fn who_stops_waiting_makes_room_for_another() {
        let budget = MemoryBudget::new(2 * STEP);
        let mut one = budget.reserve(STEP).await;
        let mut two = budget.reserve(STEP).await;
        assert!(is_ready(&mut Box::pin(one.grow(2 * STEP))).await.is_none());
        drop(one);
        assert_eq!(two.grow(2 * STEP).await, Ok(()));
    }

    /// Layers whose needs are all underestimated: the limit holds, but for one that is larger than it, and all end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_limit_holds_and_every_layer_ends() {
        let limit = 64 * STEP;
        let budget = MemoryBudget::new(limit);
        let restarts = Arc::new(AtomicU64::new(0));
        let mut layers = tokio::task::JoinSet::new();
        for layer in 0..40u64 {
            let (budget, restarts) = (Arc::clone(&budget), Arc::clone(&restarts));
            let need = (1 + layer * 7 % 32) * STEP;
            layers.spawn(async move {
                let mut estimate = STEP;
                'start: loop {
                    let mut memory = budget.reserve(estimate).await;
                    let mut size = 0;
                    while size < need {
                        size += STEP;
                        if let Err(crowded) = memory.grow(size).await {
                            restarts.fetch_add(1, Ordering::Relaxed);
                            estimate = crowded.needed;
                            continue 'start;
                        }
                        tokio::task::yield_now().await;
                    }
                    return;
                }
            });
        }
        let all = async { while layers.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        let state = budget.state();
        assert!(state.peak <= limit, "{} of {limit}", state.peak);
        assert_eq!((state.reserved, state.holders, state.waiting), (0, 0, None));
        assert!(restarts.load(Ordering::Relaxed) > 0, "nothing was tight");
    }
}
