//! Whose request goes next over a long link.
//!
//! What is asked of a registry that is many milliseconds away is asked for in pieces, a few at a time ([`crate::content::link::chunked_range`]), and each
//! piece has to wait for a lane. Whoever waits for bytes comes before those who only expect them to be wanted, at the next piece
//! and not at the next span, and nothing has to be given up for it: connections stay as quick as they have become.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::{oneshot, watch};

use crate::base::lock::lock;
use crate::content::link::schedule::LONGEST_QUEUE;

/// How much depends on a request, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// A reader waits for it.
    Waited,
    /// It says what else readers are going to ask for.
    Leading,
    /// A reader is expected to ask for it soon.
    Expected,
    /// It is likely to be read.
    Likely,
    /// Nothing says that it will be read.
    Spare,
}

/// The most urgent first.
const URGENCIES: [Urgency; 5] =
    [Urgency::Waited, Urgency::Leading, Urgency::Expected, Urgency::Likely, Urgency::Spare];

/// Lanes for what is not urgent: enough to fill the round trip in which nothing comes for a reader. More would be in the way of
/// one who comes.
const IDLE: usize = 2;

/// What is not urgent goes when no more than this is under way of what is: its first bytes come behind those, and not between
/// them.
const ENDING: usize = 2;

/// Lanes that are kept free from what is not urgent, if there are more.
const KEPT: usize = 2;

impl Urgency {
    /// That of a number; what is unknown is not urgent.
    pub(crate) fn of(number: u8) -> Self {
        URGENCIES.get(usize::from(number)).copied().unwrap_or(Self::Spare)
    }

    /// Whether a reader waits for it, or is expected to come soon.
    pub(crate) fn is_urgent(self) -> bool {
        self <= Self::Expected
    }
}

/// A fixed number of lanes, and who waits for one.
#[derive(Debug)]
pub(crate) struct Lanes(Mutex<State>);

#[derive(Debug)]
struct State {
    count: usize,
    free: usize,
    /// Lanes that were given for something urgent.
    urgent: usize,
    /// How many have been given so far.
    given: u64,
    waiting: [VecDeque<oneshot::Sender<Lane>>; URGENCIES.len()],
}

/// The right to one request at a time.
#[derive(Debug)]
pub(crate) struct Lane {
    /// None if it was never used.
    lanes: Option<Arc<Lanes>>,
    /// When it was given.
    urgency: Urgency,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            lock(&lanes.0).give_back(self.urgency);
            lanes.pass_on();
        }
    }
}

impl Lanes {
    /// At least one.
    pub(crate) fn new(lanes: usize) -> Arc<Self> {
        let lanes = lanes.max(1);
        Arc::new(Self(Mutex::new(State {
            count: lanes,
            free: lanes,
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

    /// Takes a place in the queue at once, and waits for a lane when polled. Who waits is asked anew whenever `changes` says that
    /// something is different. `None` for a reader when nobody has got one for a long time: he has waited enough.
    pub(crate) fn take<T: Send + Sync, U: Fn() -> Urgency + Send>(
        self: &Arc<Self>,
        urgency: U,
        changes: watch::Receiver<T>,
    ) -> impl Future<Output = Option<Lane>> + Send + use<T, U> {
        let first = urgency();
        let turn = self.queue(first);
        Arc::clone(self).wait(first, turn, urgency, changes)
    }

    async fn wait<T: Send + Sync>(
        self: Arc<Self>,
        mut now: Urgency,
        mut turn: oneshot::Receiver<Lane>,
        urgency: impl Fn() -> Urgency + Send,
        mut changes: watch::Receiver<T>,
    ) -> Option<Lane> {
        loop {
            if now == Urgency::Waited {
                loop {
                    let given = lock(&self.0).given;
                    if let Ok(lane) = tokio::time::timeout(LONGEST_QUEUE, &mut turn).await {
                        return lane.ok();
                    }
                    // As long as others get lanes, so will he.
                    if lock(&self.0).given == given {
                        return None;
                    }
                }
            }
            loop {
                tokio::select! {
                    biased;
                    lane = &mut turn => return lane.ok(),
                    changed = changes.changed() => {
                        changed.ok()?;
                        if urgency() != now {
                            break;
                        }
                    }
                }
            }
            now = urgency();
            turn = self.queue(now);
        }
    }

    /// Takes a place in a queue.
    fn queue(self: &Arc<Self>, urgency: Urgency) -> oneshot::Receiver<Lane> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.0).waiting[urgency as usize].push_back(sender);
        self.pass_on();
        receiver
    }

    /// Gives free lanes to those to whom they are most urgent.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = lock(&self.0).next();
            let Some((next, urgency)) = next else { return };
            if let Err(mut lane) = next.send(Lane { lanes: Some(Arc::clone(self)), urgency }) {
                // He has gone.
                lane.lanes = None;
                lock(&self.0).give_back(urgency);
            }
        }
    }
}

impl State {
    /// Who gets a lane next, and for what, which is not free from then on.
    fn next(&mut self) -> Option<(oneshot::Sender<Lane>, Urgency)> {
        let Self { count, free, urgent, given, waiting } = self;
        let idle = *count - *free - *urgent;
        let may = |urgency: Urgency| {
            let ending = *urgent <= ENDING && idle < IDLE && *free > KEPT.min(*count - 1);
            if urgency.is_urgent() { *free > 0 } else { ending }
        };
        let mut queues = URGENCIES.into_iter().zip(waiting).filter(|(urgency, _)| may(*urgency));
        let next = queues.find_map(|(urgency, queue)| Some((queue.pop_front()?, urgency)))?;
        *free -= 1;
        *given += 1;
        *urgent += usize::from(next.1.is_urgent());
        Some(next)
    }

    /// A lane is free again.
    fn give_back(&mut self, urgency: Urgency) {
        self.free += 1;
        self.urgent -= usize::from(urgency.is_urgent());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_most_urgent_goes_first_and_whoever_has_gone_is_passed_over() {
        let lanes = Lanes::new(2);
        let (_sender, changes) = watch::channel(());
        let take = |urgency| {
            let (lanes, changes) = (Arc::clone(&lanes), changes.clone());
            Box::pin(async move { lanes.take(|| urgency, changes).await })
        };
        let (first, second) = (take(Urgency::Waited).await, take(Urgency::Waited).await);
        let mut waiting =
            [Urgency::Spare, Urgency::Likely, Urgency::Waited, Urgency::Waited, Urgency::Expected].map(take);
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
        // The last lane is kept for a reader.
        assert!(futures::poll!(&mut likely).is_pending());
        drop(fourth);
        assert!(futures::poll!(&mut spare).is_pending());
        drop(likely.as_mut().await);
        let fifth = spare.as_mut().await;
        let sixth = take(Urgency::Waited).await;
        // One that was given to somebody who went before he took it.
        let mut late = take(Urgency::Waited);
        assert!(futures::poll!(&mut late).is_pending());
        drop(sixth);
        drop(late);
        drop(fifth);
        assert_eq!(lock(&lanes.0).free, 2);
    }

    #[tokio::test]
    async fn what_is_not_urgent_goes_behind_the_last_of_what_is() {
        let lanes = Lanes::new(6);
        let (_sender, changes) = watch::channel(());
        let take = |urgency| Box::pin(lanes.take(move || urgency, changes.clone()));
        let mut waited: Vec<_> = vec![take(Urgency::Waited).await];
        while waited.len() <= ENDING {
            waited.push(take(Urgency::Waited).await);
        }
        let mut likely = [Urgency::Likely, Urgency::Likely, Urgency::Spare].map(take);
        for one in &mut likely {
            assert!(futures::poll!(one).is_pending());
        }
        waited.pop();
        let [first, second, mut spare] = likely;
        let taken = (first.await, second.await);
        assert!(futures::poll!(&mut spare).is_pending());
        // Two are kept free for a reader.
        waited.push(take(Urgency::Expected).await);
        waited.push(take(Urgency::Waited).await);
        drop(taken);
        assert!(futures::poll!(&mut spare).is_pending());
        waited.truncate(ENDING);
        assert!(spare.await.is_some());
        drop(waited);
        let state = lock(&lanes.0);
        assert_eq!((state.free, state.urgent), (6, 0));
    }

    #[tokio::test]
    async fn what_becomes_urgent_overtakes() {
        let lanes = Lanes::new(1);
        let (sender, changes) = watch::channel(Urgency::Spare);
        let taken = lanes.take(|| Urgency::Spare, changes.clone()).await;
        let mut expected = Box::pin(lanes.take(|| Urgency::Expected, changes.clone()));
        let mut changing = Box::pin(lanes.take(|| *sender.borrow(), changes));
        assert!(futures::poll!(&mut expected).is_pending() && futures::poll!(&mut changing).is_pending());
        sender.send_replace(Urgency::Waited);
        assert!(futures::poll!(&mut expected).is_pending() && futures::poll!(&mut changing).is_pending());
        drop(taken);
        assert!(futures::poll!(&mut expected).is_pending());
        drop(changing.await);
        assert!(expected.await.is_some());
    }
}
