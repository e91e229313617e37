//! Whose request goes next over a long link.
//!
//! What is asked of a registry that is many milliseconds away is asked for in chunks, a few at a time
//! ([`chunked_range`](super::chunked_range)), and each chunk waits for a slot. A reader's request comes before those
//! for what is only expected to be read. It goes ahead at the next chunk, not at the next span, and no request is given
//! up for it: connections stay as quick as they have become.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::base::lock::lock;
use crate::content::link::priority::Priority;

/// How long a reader waits for others to be done with their connections.
pub(crate) const LONGEST_QUEUE: Duration = Duration::from_secs(10);

/// Slots for what is not urgent: enough to fill the round trip in which nothing comes for a reader. More would be in
/// the way of a reader that comes.
const IDLE: usize = 2;

/// Requests that are not urgent start only while at most this many urgent ones are under way, so that their bytes queue
/// behind those and not between them.
const ENDING: usize = 2;

/// Slots that are kept free from what is not urgent, if there are more.
const KEPT: usize = 2;

/// A fixed number of slots, and who waits for one.
#[derive(Debug)]
pub(crate) struct RequestSlots(Mutex<State>);

#[derive(Debug)]
struct State {
    count: usize,
    free: usize,
    /// Slots that were given for something urgent.
    urgent: usize,
    /// How many have been given so far.
    given: u64,
    waiting: [VecDeque<oneshot::Sender<Slot>>; Priority::ALL.len()],
}

/// The right to one request at a time.
#[derive(Debug)]
pub(crate) struct Slot {
    /// None if it was never used.
    slots: Option<Arc<RequestSlots>>,
    /// When it was given.
    priority: Priority,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            lock(&slots.0).give_back(self.priority);
            slots.pass_on();
        }
    }
}

impl RequestSlots {
    /// At least one.
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        let slots = slots.max(1);
        Arc::new(Self(Mutex::new(State {
            count: slots,
            free: slots,
            urgent: 0,
            given: 0,
            waiting: Default::default(),
        })))
    }

    /// How many are taken.
    pub(crate) fn busy(&self) -> usize {
        let state = lock(&self.0);
        state.count - state.free
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).count
    }

    /// Takes a place in the queue at once, and waits for a slot when polled. The priority is asked anew whenever
    /// `changes` says that something is different. `None` for a reader when nobody has got a slot for a long time: it
    /// has waited enough.
    pub(crate) fn take<T: Send + Sync, U: Fn() -> Priority + Send>(
        self: &Arc<Self>,
        priority: U,
        changes: watch::Receiver<T>,
    ) -> impl Future<Output = Option<Slot>> + Send + use<T, U> {
        let first = priority();
        let turn = self.queue(first);
        Arc::clone(self).wait(first, turn, priority, changes)
    }

    async fn wait<T: Send + Sync>(
        self: Arc<Self>,
        mut now: Priority,
        mut turn: oneshot::Receiver<Slot>,
        priority: impl Fn() -> Priority + Send,
        mut changes: watch::Receiver<T>,
    ) -> Option<Slot> {
        loop {
            if now == Priority::Demand {
                loop {
                    let given = lock(&self.0).given;
                    if let Ok(slot) = tokio::time::timeout(LONGEST_QUEUE, &mut turn).await {
                        return slot.ok();
                    }
                    // As long as others get slots, so will this reader.
                    if lock(&self.0).given == given {
                        return None;
                    }
                }
            }
            loop {
                tokio::select! {
                    biased;
                    slot = &mut turn => return slot.ok(),
                    changed = changes.changed() => {
                        changed.ok()?;
                        if priority() != now {
                            break;
                        }
                    }
                }
            }
            now = priority();
            turn = self.queue(now);
        }
    }

    /// Takes a place in a queue.
    fn queue(self: &Arc<Self>, priority: Priority) -> oneshot::Receiver<Slot> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.0).waiting[priority as usize].push_back(sender);
        self.pass_on();
        receiver
    }

    /// Gives free slots to those to whom they are most urgent.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = lock(&self.0).next();
            let Some((next, priority)) = next else { return };
            if let Err(mut slot) = next.send(Slot { slots: Some(Arc::clone(self)), priority }) {
                // The one who asked has gone.
                slot.slots = None;
                lock(&self.0).give_back(priority);
            }
        }
    }
}

impl State {
    /// Who gets a slot next, and for what, which is not free from then on.
    fn next(&mut self) -> Option<(oneshot::Sender<Slot>, Priority)> {
        let Self { count, free, urgent, given, waiting } = self;
        let idle = *count - *free - *urgent;
        let may = |priority: Priority| {
            let ending = *urgent <= ENDING && idle < IDLE && *free > KEPT.min(*count - 1);
            if priority.is_urgent() { *free > 0 } else { ending }
        };
        let mut queues = Priority::ALL.into_iter().zip(waiting).filter(|(priority, _)| may(*priority));
        let next = queues.find_map(|(priority, queue)| Some((queue.pop_front()?, priority)))?;
        *free -= 1;
        *given += 1;
        *urgent += usize::from(next.1.is_urgent());
        Some(next)
    }

    /// A slot is free again.
    fn give_back(&mut self, priority: Priority) {
        self.free += 1;
        self.urgent -= usize::from(priority.is_urgent());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_most_urgent_goes_first_and_whoever_has_gone_is_passed_over() {
        let slots = RequestSlots::new(2);
        let (_sender, changes) = watch::channel(());
        let take = |priority| {
            let (slots, changes) = (Arc::clone(&slots), changes.clone());
            Box::pin(async move { slots.take(|| priority, changes).await })
        };
        let (first, second) = (take(Priority::Demand).await, take(Priority::Demand).await);
        let mut waiting = [
            Priority::Background,
            Priority::Speculative,
            Priority::Demand,
            Priority::Demand,
            Priority::Expected,
        ]
        .map(take);
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        let [mut spare, mut likely, gone, mut waited, mut expected] = waiting;
        drop(gone);
        drop(first);
        assert!(futures::poll!(&mut expected).is_pending());
        let third = waited.as_mut().await;
        drop(second);
        let fourth = expected.as_mut().await;
        drop(third);
        // The last slot is kept for a reader.
        assert!(futures::poll!(&mut likely).is_pending());
        drop(fourth);
        assert!(futures::poll!(&mut spare).is_pending());
        drop(likely.as_mut().await);
        let fifth = spare.as_mut().await;
        let sixth = take(Priority::Demand).await;
        // One that was given to somebody who went before he took it.
        let mut late = take(Priority::Demand);
        assert!(futures::poll!(&mut late).is_pending());
        drop(sixth);
        drop(late);
        drop(fifth);
        assert_eq!(lock(&slots.0).free, 2);
    }

    #[tokio::test]
    async fn what_is_not_urgent_goes_behind_the_last_of_what_is() {
        let slots = RequestSlots::new(6);
        let (_sender, changes) = watch::channel(());
        let take = |priority| Box::pin(slots.take(move || priority, changes.clone()));
        let mut waited: Vec<_> = vec![take(Priority::Demand).await];
        while waited.len() <= ENDING {
            waited.push(take(Priority::Demand).await);
        }
        let mut likely = [Priority::Speculative, Priority::Speculative, Priority::Background].map(take);
        for one in &mut likely {
            assert!(futures::poll!(one).is_pending());
        }
        waited.pop();
        let [first, second, mut spare] = likely;
        let taken = (first.await, second.await);
        assert!(futures::poll!(&mut spare).is_pending());
        // Two are kept free for a reader.
        waited.push(take(Priority::Expected).await);
        waited.push(take(Priority::Demand).await);
        drop(taken);
        assert!(futures::poll!(&mut spare).is_pending());
        waited.truncate(ENDING);
        assert!(spare.await.is_some());
        drop(waited);
        let state = lock(&slots.0);
        assert_eq!((state.free, state.urgent), (6, 0));
    }

    #[tokio::test]
    async fn what_becomes_urgent_overtakes() {
        let slots = RequestSlots::new(1);
        let (sender, changes) = watch::channel(Priority::Background);
        let taken = slots.take(|| Priority::Background, changes.clone()).await;
        let mut expected = Box::pin(slots.take(|| Priority::Expected, changes.clone()));
        let mut changing = Box::pin(slots.take(|| *sender.borrow(), changes));
        assert!(futures::poll!(&mut expected).is_pending() && futures::poll!(&mut changing).is_pending());
        sender.send_replace(Priority::Demand);
        assert!(futures::poll!(&mut expected).is_pending() && futures::poll!(&mut changing).is_pending());
        drop(taken);
        assert!(futures::poll!(&mut expected).is_pending());
        drop(changing.await);
        assert!(expected.await.is_some());
    }
}
