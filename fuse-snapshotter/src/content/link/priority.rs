//! How much depends on a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How much depends on a request, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// A reader is blocked on it.
    Demand,
    /// It tells what else readers are going to ask for.
    Discovery,
    /// A reader is expected to ask for it soon.
    Expected,
    /// A reader may ask for it some time.
    Speculative,
    /// Nothing says that it will be read.
    Background,
}

impl Priority {
    /// The most urgent first.
    pub(crate) const ALL: [Self; 5] =
        [Self::Demand, Self::Discovery, Self::Expected, Self::Speculative, Self::Background];

    /// That of a number; what is unknown is not urgent.
    fn of(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Background)
    }

    /// Whether a reader waits for it, or is expected to come soon.
    pub(crate) fn is_urgent(self) -> bool {
        self <= Self::Expected
    }
}

/// The priority of a fetch that several may wait for: that of the most urgent of them.
#[derive(Debug)]
pub(crate) struct SharedPriority(AtomicU8);

impl SharedPriority {
    pub(crate) fn new(priority: Priority) -> Self {
        Self(AtomicU8::new(priority as u8))
    }

    pub(crate) fn get(&self) -> Priority {
        Priority::of(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn raise(&self, priority: Priority) {
        self.0.fetch_min(priority as u8, Ordering::Relaxed);
    }
}

/// The priorities of the bytes in a range, which may change while they are fetched.
#[derive(Debug)]
pub(crate) struct RangePriorities {
    /// Of what nobody waits for.
    pub(crate) least: Priority,
    /// The ends of parts of the range, ascending, and how urgent these parts are.
    pub(crate) parts: Vec<(u64, Arc<SharedPriority>)>,
}

impl RangePriorities {
    /// How urgent the bytes at a position are. Bytes come in order, so what is in front of bytes that a reader waits
    /// for is as urgent as those.
    pub(crate) fn at(&self, position: u64) -> Priority {
        let from_here = self.parts.iter().filter(|(end, _)| *end > position);
        from_here.map(|(_, priority)| priority.get()).fold(self.least, Priority::min)
    }
}
