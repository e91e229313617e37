//! Telling others which files the kernel asks for, and for which process.
//!
//! What a process reads is known as far as the kernel asks for it: what is in its page cache it does not ask for. All
//! trees that have a layer share the pages of its files, so one that is watched would miss what a neighbour has read
//! before. But each tree has its own directories. So the first look-up of a file through a tree is always seen, and
//! then the pages can be dropped that there are: all that is read after it is asked for again, and whoever shares
//! them reads them again from our cache.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::forest::Forest;
use super::inode_number::Number;
use crate::base::lock::lock;
use crate::content::LazyLayer;
use crate::content::tree::InodeKind;

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

/// Somebody who wants to know what is asked for. Processes are named by their ids, as seen by this process; 0 stands
/// for one that it cannot see, and for the kernel itself. All calls come before the kernel is answered, so that a
/// process that waits for its answer is still there; they must be quick.
pub trait Observer: Send + Sync {
    /// A range of a file's content is asked for; `waits`: it is not in the cache.
    fn read(&self, file: &AskedFile<'_>, range: Range<u64>, waits: bool, process: u32);

    /// Whether it matters what this process does. As long as it does, listing a directory does not take the place of
    /// looking up the files in it.
    fn watches(&self, process: u32) -> bool;

    /// A file is looked up. Whether its pages are to be dropped, so that all that is read of it will be asked for.
    fn looked_up(&self, file: &AskedFile<'_>, process: u32) -> bool;

    /// Pages of a file could not be dropped: some of what is read of it may not be asked for.
    fn missed(&self);
}

/// Those who want to know.
#[derive(Default)]
pub(super) struct Observers {
    /// Whether there may be any: a look at this is all that a request costs as long as there are none.
    any: AtomicBool,
    all: Mutex<Vec<Weak<dyn Observer>>>,
}

impl Observers {
    fn add(&self, observer: &Arc<dyn Observer>) {
        let mut all = lock(&self.all);
        all.push(Arc::downgrade(observer));
        self.any.store(true, Ordering::Release);
    }

    fn all(&self) -> Vec<Arc<dyn Observer>> {
        let mut observers = Vec::new();
        if self.any.load(Ordering::Acquire) {
            let mut all = lock(&self.all);
            all.retain(|observer| observer.upgrade().map(|alive| observers.push(alive)).is_some());
            self.any.store(!all.is_empty(), Ordering::Release);
        }
        observers
    }
}

impl Forest {
    /// Tells an observer of what the kernel asks for, as long as it lives.
    pub fn observe(&self, observer: &Arc<dyn Observer>) {
        self.observers.add(observer);
    }

    /// Tells that a process reads from a file.
    pub(crate) fn tell_read(&self, number: u64, offset: u64, length: usize, waits: bool, process: u32) {
        self.tell(number, |observers, file, size| {
            let range = offset.min(size)..offset.saturating_add(length as u64).min(size);
            observers.iter().for_each(|observer| observer.read(file, range.clone(), waits, process));
        });
    }

    /// Tells that a process looks up a file. Returns which pages of it are to be dropped first: only such as can be
    /// read again from the cache.
    pub(crate) fn tell_lookup(&self, number: u64, process: u32) -> Vec<Range<u64>> {
        let dropped = self.tell(number, |observers, file, _| {
            // Each of them is told.
            let wanted = observers.iter().filter(|observer| observer.looked_up(file, process)).count();
            if wanted == 0 { Vec::new() } else { file.layer.cached_ranges(file.entry) }
        });
        dropped.unwrap_or_default()
    }

    /// Tells that pages were not dropped.
    pub(crate) fn tell_missed(&self) {
        self.observers.all().iter().for_each(|observer| observer.missed());
    }

    /// Whether somebody wants to know of all files that a process looks up.
    pub(crate) fn is_watched(&self, process: u32) -> bool {
        self.observers.all().iter().any(|observer| observer.watches(process))
    }

    /// Whether more than one tree has a layer.
    pub(crate) fn is_shared(&self, layer: &LazyLayer) -> bool {
        self.tree_table.load().trees().filter(|forest_tree| forest_tree.has(layer)).count() > 1
    }

    /// Calls `tell` with the observers, and a file with its size, if there are any and it is one.
    fn tell<T>(
        &self,
        number: u64,
        tell: impl FnOnce(&[Arc<dyn Observer>], &AskedFile<'_>, u64) -> T,
    ) -> Option<T> {
        let observers = self.observers.all();
        let Some(number @ Number::File(slot, _)) = Number::decode(number).filter(|_| !observers.is_empty())
        else {
            return None;
        };
        let tree_table = self.tree_table.load();
        let found = tree_table.find(number).ok()?;
        let inode = found.forest_tree.tree.inode(found.index);
        let (layer, entry) = found.content.filter(|_| inode.kind == InodeKind::Regular)?;
        let shared = tree_table.trees_with(slot) > 1;
        Some(tell(&observers, &AskedFile { layer, entry: entry as usize, shared }, inode.size))
    }
}
