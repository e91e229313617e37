//! Observers: they are told which files the kernel asks for, and for which process.
//!
//! What a process reads is known as far as the kernel asks for it: what is in its page cache it does not ask for.
//! All trees that have a layer share the pages of its files, so an observer of one tree would miss what a process
//! in another tree has read before. But each tree has its own directories, so the first look-up of a file through a
//! tree is always seen. The pages of the file can then be dropped: all that is read after that is asked for again,
//! and whoever shares the pages reads them again from the cache of this process.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::base::lock::lock;
use crate::content::LazyLayer;

/// A file whose content the kernel asks for.
#[derive(Debug, Clone, Copy)]
pub struct AskedFile<'a> {
    /// The layer that it is in.
    pub layer: &'a Arc<LazyLayer>,
    /// Its entry in the layer's zTOC.
    pub entry: usize,
    /// Whether more than one tree has the layer.
    pub shared: bool,
}

/// An observer of what is asked for. Processes are named by their ids, as seen by this process; 0 stands for one
/// that it cannot see, and for the kernel itself. All calls come before the kernel is answered, so that the process
/// that waits for the answer is still there. They must be quick.
pub trait Observer: Send + Sync {
    /// A range of a file's content is asked for; `waits`: it is not in the cache.
    fn read(&self, file: &AskedFile<'_>, range: Range<u64>, waits: bool, process: u32);

    /// Whether look-ups of this process are to be seen. As long as they are, listing a directory does not take the
    /// place of looking up the files in it.
    fn watches(&self, process: u32) -> bool;

    /// A file is looked up. Returns whether its pages are to be dropped, so that all that is read of it will be
    /// asked for.
    fn looked_up(&self, file: &AskedFile<'_>, process: u32) -> bool;

    /// Pages of a file could not be dropped: some of what is read of it may not be asked for.
    fn missed(&self);
}

/// All observers.
#[derive(Default)]
pub(super) struct Observers {
    /// Whether there may be any. As long as there are none, a request only looks at this.
    any: AtomicBool,
    all: Mutex<Vec<Weak<dyn Observer>>>,
}

impl Observers {
    pub(super) fn add(&self, observer: &Arc<dyn Observer>) {
        let mut all = lock(&self.all);
        all.push(Arc::downgrade(observer));
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn all(&self) -> Vec<Arc<dyn Observer>> {
        let mut observers = Vec::new();
        if self.any.load(Ordering::Acquire) {
            let mut all = lock(&self.all);
            all.retain(|observer| observer.upgrade().map(|alive| observers.push(alive)).is_some());
            self.any.store(!all.is_empty(), Ordering::Release);
        }
        observers
    }
}
