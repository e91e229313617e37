//! Which trees there are, and which layers they share.
//!
//! All of it is one immutable table that is replaced as a whole when a tree is added or removed: serving the kernel
//! takes no lock and never waits for that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::attr::Attributes;
use super::error::FsError;
use super::ids::IdMaps;
use super::inode_number::{self, Number};
use super::inode_number::{LayerSlot, TreeSlot};
use super::operation_counts::OperationCounts;
use crate::content::LazyLayer;
use crate::content::tree::{FileId, InodeId, InodeIndex, Tree};

/// Why a tree cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AddTreeError {
    /// The slot has a tree.
    #[error("there is a tree in slot {0} already")]
    TreeSlotTaken(TreeSlot),
    /// The name has a tree.
    #[error("there is a tree named {0:?} already")]
    NameTaken(String),
    /// No directory can be called that.
    #[error("{0:?} cannot be the name of a directory")]
    InvalidName(String),
    /// Beyond what inode numbers have room for, or the forest's own.
    #[error("a tree cannot be in slot {0}; slots are 1 to 1,048,575")]
    NoSuchTreeSlot(TreeSlot),
    /// Beyond what inode numbers have room for.
    #[error("a layer cannot be in slot {0}; slots are 0 to 2,097,151")]
    NoSuchLayerSlot(LayerSlot),
    /// More than inode numbers have room for.
    #[error("the layer has {entries} entries; at most 67,108,864 can be served")]
    TooManyEntries {
        /// Index of the layer in the tree, bottom first.
        position: usize,
        /// How many entries its zTOC has.
        entries: usize,
    },
    /// More than inode numbers have room for.
    #[error("the tree has {0} directories; at most 67,108,862 can be served")]
    TooManyDirectories(usize),
    /// There is no tree to be added once more.
    #[error("there is no tree in slot {0}")]
    NoTree(TreeSlot),
    /// The layers are not those that the tree was merged from.
    #[error("the tree was not merged from these layers")]
    OtherLayers,
    /// The slot has another layer, or another zTOC of the same one.
    #[error("layer slot {0} has another layer")]
    LayerSlotTaken(LayerSlot),
    /// Inodes of a layer have one owner, whichever tree they are looked up in.
    #[error("the layer in slot {0} is served with other owners")]
    OtherOwners(LayerSlot),
}

/// One tree of the forest.
#[derive(Debug)]
pub(super) struct ForestTree {
    pub(super) slot: TreeSlot,
    pub(super) name: Box<str>,
    /// Shared by trees that differ in their owners only.
    pub(super) tree: Arc<Tree>,
    /// Bottom first.
    pub(super) layers: Vec<(LayerSlot, Arc<LazyLayer>)>,
    pub(super) ids: Option<IdMaps>,
    pub(super) counts: OperationCounts,
}

impl ForestTree {
    pub(super) fn has(&self, layer: &LazyLayer) -> bool {
        self.layers.iter().any(|(_, other)| other.has_same_content(layer))
    }

    pub(super) fn attributes(&self, index: InodeIndex) -> Attributes {
        let inode = self.tree.inode(index);
        let number = match inode.id() {
            InodeId::Own(own) => Number::Own(self.slot, own),
            // `TreeTable::add_tree` has seen that there is a slot for each layer of the tree.
            InodeId::File(file) => Number::File(self.layers[usize::from(file.layer)].0, file.entry),
        };
        Attributes::of(inode, number.encode()).owned_by(self.ids.as_ref())
    }
}

/// A layer, and where it is.
#[derive(Debug, Clone)]
pub(super) struct SharedLayer {
    pub(super) layer: Arc<LazyLayer>,
    /// The trees that have it, and its index in them.
    trees: Vec<(Arc<ForestTree>, u16)>,
}

impl SharedLayer {
    /// A tree in which an entry of the layer is visible, and its inode there. Any of them will do: what is said of an
    /// entry comes from its zTOC, but for the number of links, which may be that of another tree.
    fn find(&self, entry: u32) -> Option<(&Arc<ForestTree>, InodeIndex)> {
        self.trees.iter().find_map(|(forest_tree, layer)| {
            let file = FileId { layer: *layer, entry };
            Some((forest_tree, forest_tree.tree.by_id(InodeId::File(file))?))
        })
    }
}

/// The trees and layers at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct TreeTable {
    trees: HashMap<u32, Arc<ForestTree>>,
    names: BTreeMap<Box<str>, TreeSlot>,
    layers: HashMap<u32, Arc<SharedLayer>>,
}

/// Something of an image, found by its inode number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'p> {
    pub(super) forest_tree: &'p Arc<ForestTree>,
    pub(super) index: InodeIndex,
    /// Where its content is, unless it is a directory or whiteout.
    pub(super) content: Option<(&'p Arc<LazyLayer>, u32)>,
}

impl TreeTable {
    pub(super) fn tree(&self, slot: TreeSlot) -> Option<&Arc<ForestTree>> {
        self.trees.get(&slot.0)
    }

    pub(super) fn trees(&self) -> impl Iterator<Item = &Arc<ForestTree>> {
        self.trees.values()
    }

    pub(super) fn layer(&self, slot: LayerSlot) -> Option<&Arc<LazyLayer>> {
        self.layers.get(&slot.0).map(|shared| &shared.layer)
    }

    /// How many trees have the layer in a slot.
    pub(super) fn trees_with(&self, slot: LayerSlot) -> usize {
        self.layers.get(&slot.0).map_or(0, |shared| shared.trees.len())
    }

    /// The tree with this name.
    pub(super) fn named(&self, name: &[u8]) -> Option<&Arc<ForestTree>> {
        self.tree(*self.names.get(str::from_utf8(name).ok()?)?)
    }

    /// The trees, sorted by name.
    pub(super) fn by_name(&self) -> impl Iterator<Item = &Arc<ForestTree>> {
        self.names.values().filter_map(|slot| self.tree(*slot))
    }

    /// What has this inode number, if it comes from an image.
    pub(super) fn find(&self, number: Number) -> Result<Found<'_>, FsError> {
        let found = match number {
            Number::Own(slot, own) => self.tree(slot).and_then(|forest_tree| {
                Some(Found { forest_tree, index: forest_tree.tree.by_id(InodeId::Own(own))?, content: None })
            }),
            Number::File(slot, entry) => self.layers.get(&slot.0).and_then(|shared| {
                let (forest_tree, index) = shared.find(entry)?;
                Some(Found { forest_tree, index, content: Some((&shared.layer, entry)) })
            }),
            Number::StateDirectory(_) | Number::StateFile(_) => None,
        };
        found.ok_or(FsError::Stale)
    }

    /// The table with one more tree.
    pub(super) fn add_tree(&self, mut forest_tree: ForestTree) -> Result<Self, AddTreeError> {
        let ForestTree { slot, tree, layers, .. } = &forest_tree;
        inode_number::check(*slot, tree.own_len(), layers.iter().map(|(slot, _)| *slot).zip(tree.entries()))?;
        let tables = layers.iter().map(|(_, layer)| layer.table().len());
        if !tables.eq(tree.entries()) {
            return Err(AddTreeError::OtherLayers);
        }
        if self.trees.contains_key(&slot.0) {
            return Err(AddTreeError::TreeSlotTaken(*slot));
        }
        if self.names.contains_key(&forest_tree.name) {
            return Err(AddTreeError::NameTaken(forest_tree.name.into()));
        }
        for (slot, layer) in &mut forest_tree.layers {
            let Some(shared) = self.layers.get(&slot.0) else { continue };
            if !layer.has_same_content(&shared.layer) {
                return Err(AddTreeError::LayerSlotTaken(*slot));
            }
            if shared.trees.iter().any(|(other, _)| other.ids != forest_tree.ids) {
                return Err(AddTreeError::OtherOwners(*slot));
            }
            // One of them reads; what the two have fetched is in the same cache anyway.
            *layer = Arc::clone(&shared.layer);
        }
        let forest_tree = Arc::new(forest_tree);
        let mut next = self.clone();
        // A tree has fewer than 65,535 layers.
        for (position, (slot, layer)) in (0..).zip(&forest_tree.layers) {
            let shared = next.layers.entry(slot.0);
            let shared = shared
                .or_insert_with(|| Arc::new(SharedLayer { layer: Arc::clone(layer), trees: Vec::new() }));
            if !Arc::ptr_eq(&shared.layer, layer) && !shared.layer.has_same_content(layer) {
                // Two layers of this very tree.
                return Err(AddTreeError::LayerSlotTaken(*slot));
            }
            Arc::make_mut(shared).trees.push((Arc::clone(&forest_tree), position));
        }
        next.names.insert(forest_tree.name.clone(), forest_tree.slot);
        next.trees.insert(forest_tree.slot.0, forest_tree);
        Ok(next)
    }

    /// The table without a tree, and that tree.
    pub(super) fn remove_tree(&self, slot: TreeSlot) -> Option<(Self, Arc<ForestTree>)> {
        let mut next = self.clone();
        let removed = next.trees.remove(&slot.0)?;
        next.names.remove(&removed.name);
        for (slot, _) in &removed.layers {
            if let Some(shared) = next.layers.get_mut(&slot.0) {
                Arc::make_mut(shared).trees.retain(|(forest_tree, _)| forest_tree.slot != removed.slot);
                if shared.trees.is_empty() {
                    next.layers.remove(&slot.0);
                }
            }
        }
        Some((next, removed))
    }
}
