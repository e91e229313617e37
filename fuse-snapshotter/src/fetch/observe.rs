//! Telling others what is read.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::cache::lock;

/// Somebody who wants to know what is read of a layer.
pub trait ReadObserver: Send + Sync {
    /// A range of an entry's content was asked for; `waits`: it was not in the cache. A read that waits is told again when
    /// its content has come. Called by whoever reads, so it must be quick.
    fn read(&self, entry: usize, range: Range<u64>, waits: bool);
}

/// Those who want to know.
#[derive(Default)]
pub(super) struct Observers {
    /// Whether there may be any: a look at this is all that a read costs as long as there are none.
    any: AtomicBool,
    all: Mutex<Vec<Weak<dyn ReadObserver>>>,
}

impl Observers {
    /// Adds one; it hears of reads as long as it lives.
    pub(super) fn add(&self, observer: &Arc<dyn ReadObserver>) {
        let mut all = lock(&self.all);
        all.push(Arc::downgrade(observer));
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn tell(&self, entry: usize, range: Range<u64>, waits: bool) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut observers = Vec::new();
        {
            let mut all = lock(&self.all);
            all.retain(|observer| observer.upgrade().map(|alive| observers.push(alive)).is_some());
            self.any.store(!all.is_empty(), Ordering::Release);
        }
        observers.iter().for_each(|observer| observer.read(entry, range.clone(), waits));
    }
}
