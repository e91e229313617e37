//! The file system and its trees: adding and removing them.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;

use super::ids::IdMaps;
use super::inode_number::{LayerSlot, TreeSlot};
use super::observers::Observers;
use super::operation_counts::{Operation, OperationCounts};
use super::state_files::StateFiles;
use super::tree_table::{AddTreeError, PlacedTree, TreeTable};
use crate::base::lock::lock;
use crate::base::metrics::Metrics;
use crate::content::LazyLayer;
use crate::content::tree::Tree;

/// Longest name of a directory, in bytes.
const MAX_NAME: usize = 255;

/// Called with the name of a tree after it was added or removed.
pub(crate) type Watcher = Arc<dyn Fn(&str) + Send + Sync>;

/// Called with the inode number of a program or library that a process begins to read.
type Programs = Box<dyn Fn(u64) + Send + Sync>;

/// What programs and libraries begin with.
const PROGRAM: &[u8] = b"\x7fELF";

/// Merged trees and the layers that their contents are in.
pub struct Forest {
    pub(super) table: ArcSwap<TreeTable>,
    /// Held while the table is replaced.
    changing: Mutex<()>,
    pub(super) state_files: StateFiles,
    watcher: Mutex<Option<Watcher>>,
    programs: OnceLock<Programs>,
    pub(super) observers: Observers,
    /// Whether there is one tree for good, which is the root.
    pub(super) single: bool,
    pub(super) serves_xattrs: bool,
    pub(super) metrics: Arc<Metrics>,
}

impl fmt::Debug for Forest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the trees themselves: they may have millions of inodes.
        let table = self.table.load();
        let names: Vec<_> = table.by_name().map(|placed| &placed.name).collect();
        f.debug_struct("Forest").field("single", &self.single).field("trees", &names).finish_non_exhaustive()
    }
}

impl Default for Forest {
    fn default() -> Self {
        Self::with(TreeTable::default(), false, true)
    }
}

impl Forest {
    fn with(table: TreeTable, single: bool, serves_xattrs: bool) -> Self {
        Self {
            table: ArcSwap::from_pointee(table),
            changing: Mutex::default(),
            state_files: StateFiles::new(),
            watcher: Mutex::default(),
            programs: OnceLock::new(),
            observers: Observers::default(),
            single,
            serves_xattrs,
            metrics: Metrics::new(),
        }
    }

    /// The same file system, which counts its failures in these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// A file system without trees.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The file system of one tree over its layers, bottom first. Their slots are their positions.
    ///
    /// # Errors
    /// If the layers are not those of the tree, or have more than inode numbers have room for.
    pub fn single(tree: Tree, layers: Vec<Arc<LazyLayer>>) -> Result<Self, AddTreeError> {
        let serves_xattrs = tree.has_xattrs();
        let placed = PlacedTree {
            slot: TreeSlot(0),
            name: "".into(),
            tree: Arc::new(tree),
            layers: (0..).map(LayerSlot).zip(layers).collect(),
            ids: None,
            counts: OperationCounts::default(),
        };
        Ok(Self::with(TreeTable::default().add_tree(placed)?, true, serves_xattrs))
    }

    /// Adds a tree over its layers, bottom first, as the directory `name`. With `ids` its owners are translated.
    ///
    /// The caller assigns the slots. A tree slot stands for one tree, and a layer slot for one pair of layer and
    /// zTOC, as long as the kernel may remember it: as long as the file system is mounted. If another tree has that
    /// layer already, its [`LazyLayer`] is used for both. Trees with different `ids` cannot share layer slots.
    ///
    /// # Errors
    /// See [`AddTreeError`].
    pub fn add_tree(
        &self,
        slot: TreeSlot,
        name: &str,
        tree: impl Into<Arc<Tree>>,
        layers: Vec<(LayerSlot, Arc<LazyLayer>)>,
        ids: Option<IdMaps>,
    ) -> Result<(), AddTreeError> {
        if self.single || slot.0 == 0 {
            return Err(AddTreeError::NoSuchTreeSlot(slot));
        }
        if name.is_empty()
            || name.len() > MAX_NAME
            || matches!(name, "." | "..")
            || name.contains(['/', '\0'])
        {
            return Err(AddTreeError::InvalidName(name.to_owned()));
        }
        let (tree, counts) = (tree.into(), OperationCounts::default());
        let placed = PlacedTree { slot, name: name.into(), tree, layers, ids, counts };
        {
            let _changing = lock(&self.changing);
            self.table.store(Arc::new(self.table.load().add_tree(placed)?));
        }
        self.changed(name);
        Ok(())
    }

    /// Adds the tree in slot `of` once more, with its owners translated and its layers in other slots, bottom first.
    ///
    /// # Errors
    /// See [`AddTreeError`].
    pub fn add_translated_tree(
        &self,
        of: TreeSlot,
        slot: TreeSlot,
        name: &str,
        layers: &[LayerSlot],
        ids: IdMaps,
    ) -> Result<(), AddTreeError> {
        let original = self.table.load().tree(of).cloned().ok_or(AddTreeError::NoTree(of))?;
        if layers.len() != original.layers.len() {
            return Err(AddTreeError::OtherLayers);
        }
        let contents = original.layers.iter().map(|(_, layer)| Arc::clone(layer));
        let layers = layers.iter().copied().zip(contents).collect();
        self.add_tree(slot, name, Arc::clone(&original.tree), layers, Some(ids))
    }

    /// Removes a tree; returns whether there was one. Its inodes are stale from now on, except for files that
    /// another tree has, too. The kernel still answers from what it remembers, so whatever shows the tree is to be
    /// unmounted before.
    pub fn remove_tree(&self, slot: TreeSlot) -> bool {
        if self.single {
            return false;
        }
        let removed = {
            let _changing = lock(&self.changing);
            let Some((next, removed)) = self.table.load().remove_tree(slot) else { return false };
            self.table.store(Arc::new(next));
            removed
        };
        self.state_files.forget_tree(slot);
        self.changed(&removed.name);
        true
    }

    /// Has the kernel forget a name. The watcher is called without a lock, because the kernel may wait for look-ups
    /// that are under way.
    fn changed(&self, name: &str) {
        let watcher = lock(&self.watcher).clone();
        if let Some(watcher) = watcher {
            watcher(name);
        }
    }

    /// Sets who is told when names in the root change, in place of whoever was told before.
    pub(crate) fn watch(&self, watcher: Watcher) {
        *lock(&self.watcher) = Some(watcher);
    }

    /// Sets who is told when a process begins to read a program or a library. Only the first call counts.
    pub(crate) fn on_program(&self, told: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.programs.set(Box::new(told));
    }

    /// Looks at what was read of a file, from an offset on: whether it is the beginning of a program.
    pub(crate) fn was_read(&self, number: u64, offset: u64, bytes: &[u8]) {
        if offset == 0
            && bytes.starts_with(PROGRAM)
            && let Some(told) = self.programs.get()
        {
            told(number);
        }
    }

    /// Whether there is a tree in this slot.
    #[must_use]
    pub fn contains(&self, slot: TreeSlot) -> bool {
        self.table.load().tree(slot).is_some()
    }

    /// The layer in a slot, if any tree has it.
    #[must_use]
    pub fn layer(&self, slot: LayerSlot) -> Option<Arc<LazyLayer>> {
        self.table.load().layer(slot).cloned()
    }

    /// How often the kernel asked each operation of a tree. Files that several trees share are counted with one of
    /// them.
    #[must_use]
    pub fn operations(&self, slot: TreeSlot) -> Option<Vec<(Operation, u64)>> {
        let table = self.table.load();
        let counts = &table.tree(slot)?.counts;
        Some(Operation::ALL.iter().map(|operation| (*operation, counts.get(*operation))).collect())
    }

    /// How many state files the kernel has not forgotten.
    #[cfg(test)]
    pub(crate) fn state_files(&self) -> usize {
        self.state_files.len()
    }
}
