//! What observers are told of the kernel's requests.

use std::ops::Range;
use std::sync::Arc;

use super::file_system::Forest;
use super::inode_number::Number;
use super::observers::{AskedFile, Observer};
use crate::content::LazyLayer;
use crate::content::tree::InodeKind;

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
        self.table.load().trees().filter(|placed| placed.has(layer)).count() > 1
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
        let table = self.table.load();
        let found = table.find(number).ok()?;
        let inode = found.placed.tree.inode(found.index);
        let (layer, entry) = found.content.filter(|_| inode.kind == InodeKind::Regular)?;
        let shared = table.trees_with(slot) > 1;
        Some(tell(&observers, &AskedFile { layer, entry: entry as usize, shared }, inode.size))
    }
}
