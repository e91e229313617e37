//! The table of trees, and of the layers that they share.
//!
//! The table is immutable. It is replaced as a whole when a tree is added or removed, so that requests take no lock
//! and never wait for such a change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::attr::Attributes;
use super::error::FsError;
use super::ids::IdMaps;
use super::inode_number::{INDEX_BITS, INDEX_MASK, LAYER_BITS, LayerSlot, Number, TREE_BITS, TreeSlot};
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
    /// Beyond what inode numbers have room for, or slot 0, which is the root's.
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

/// A tree with its place in the table: its slot, its name, and the slots of its layers.
#[derive(Debug)]
pub(super) struct PlacedTree {
    pub(super) slot: TreeSlot,
    pub(super) name: Box<str>,
    /// Shared by trees that differ in their owners only.
    pub(super) tree: Arc<Tree>,
    /// Bottom first.
    pub(super) layers: Vec<(LayerSlot, Arc<LazyLayer>)>,
    pub(super) ids: Option<IdMaps>,
    pub(super) counts: OperationCounts,
}

impl PlacedTree {
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

/// A layer, and the trees that share it.
#[derive(Debug, Clone)]
pub(super) struct SharedLayer {
    pub(super) layer: Arc<LazyLayer>,
    /// The trees that have it, and its index in them.
    trees: Vec<(Arc<PlacedTree>, u16)>,
}

impl SharedLayer {
    /// A tree in which an entry of the layer is visible, and its inode there. Any tree will do: attributes of
    /// an entry come from its zTOC. Only the number of links may be that of another tree.
    fn find(&self, entry: u32) -> Option<(&Arc<PlacedTree>, InodeIndex)> {
        self.trees.iter().find_map(|(placed, layer)| {
            let file = FileId { layer: *layer, entry };
            Some((placed, placed.tree.by_id(InodeId::File(file))?))
        })
    }
}

/// The trees and layers at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct TreeTable {
    trees: HashMap<u32, Arc<PlacedTree>>,
    names: BTreeMap<Box<str>, TreeSlot>,
    layers: HashMap<u32, Arc<SharedLayer>>,
}

/// An inode of an image, found by its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'t> {
    pub(super) placed: &'t Arc<PlacedTree>,
    pub(super) index: InodeIndex,
    /// Where its content is, unless it is a directory or whiteout.
    pub(super) content: Option<(&'t Arc<LazyLayer>, u32)>,
}

impl TreeTable {
    pub(super) fn tree(&self, slot: TreeSlot) -> Option<&Arc<PlacedTree>> {
        self.trees.get(&slot.0)
    }

    pub(super) fn trees(&self) -> impl Iterator<Item = &Arc<PlacedTree>> {
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
    pub(super) fn named(&self, name: &[u8]) -> Option<&Arc<PlacedTree>> {
        self.tree(*self.names.get(str::from_utf8(name).ok()?)?)
    }

    /// The trees, sorted by name.
    pub(super) fn by_name(&self) -> impl Iterator<Item = &Arc<PlacedTree>> {
        self.names.values().filter_map(|slot| self.tree(*slot))
    }

    /// The inode with this number, if it comes from an image.
    pub(super) fn find(&self, number: Number) -> Result<Found<'_>, FsError> {
        let found = match number {
            Number::Own(slot, own) => self.tree(slot).and_then(|placed| {
                Some(Found { placed, index: placed.tree.by_id(InodeId::Own(own))?, content: None })
            }),
            Number::File(slot, entry) => self.layers.get(&slot.0).and_then(|shared| {
                let (placed, index) = shared.find(entry)?;
                Some(Found { placed, index, content: Some((&shared.layer, entry)) })
            }),
            Number::StateDirectory(_) | Number::StateFile(_) => None,
        };
        found.ok_or(FsError::Stale)
    }

    /// The table with one more tree.
    pub(super) fn add_tree(&self, mut placed: PlacedTree) -> Result<Self, AddTreeError> {
        let PlacedTree { slot, tree, layers, .. } = &placed;
        check(*slot, tree.own_len(), layers.iter().map(|(slot, _)| *slot).zip(tree.entries()))?;
        let tables = layers.iter().map(|(_, layer)| layer.table().len());
        if !tables.eq(tree.entries()) {
            return Err(AddTreeError::OtherLayers);
        }
        if self.trees.contains_key(&slot.0) {
            return Err(AddTreeError::TreeSlotTaken(*slot));
        }
        if self.names.contains_key(&placed.name) {
            return Err(AddTreeError::NameTaken(placed.name.into()));
        }
        for (slot, layer) in &mut placed.layers {
            let Some(shared) = self.layers.get(&slot.0) else { continue };
            if !layer.has_same_content(&shared.layer) {
                return Err(AddTreeError::LayerSlotTaken(*slot));
            }
            if shared.trees.iter().any(|(other, _)| other.ids != placed.ids) {
                return Err(AddTreeError::OtherOwners(*slot));
            }
            // One of the two does all reads. Both have the same cache.
            *layer = Arc::clone(&shared.layer);
        }
        let placed = Arc::new(placed);
        let mut next = self.clone();
        // A tree has fewer than 65,535 layers.
        for (position, (slot, layer)) in (0..).zip(&placed.layers) {
            let shared = next.layers.entry(slot.0);
            let shared = shared
                .or_insert_with(|| Arc::new(SharedLayer { layer: Arc::clone(layer), trees: Vec::new() }));
            if !Arc::ptr_eq(&shared.layer, layer) && !shared.layer.has_same_content(layer) {
                // Two layers of this very tree.
                return Err(AddTreeError::LayerSlotTaken(*slot));
            }
            Arc::make_mut(shared).trees.push((Arc::clone(&placed), position));
        }
        next.names.insert(placed.name.clone(), placed.slot);
        next.trees.insert(placed.slot.0, placed);
        Ok(next)
    }

    /// The table without a tree, and that tree.
    pub(super) fn remove_tree(&self, slot: TreeSlot) -> Option<(Self, Arc<PlacedTree>)> {
        let mut next = self.clone();
        let removed = next.trees.remove(&slot.0)?;
        next.names.remove(&removed.name);
        for (slot, _) in &removed.layers {
            if let Some(shared) = next.layers.get_mut(&slot.0) {
                Arc::make_mut(shared).trees.retain(|(placed, _)| placed.slot != removed.slot);
                if shared.trees.is_empty() {
                    next.layers.remove(&slot.0);
                }
            }
        }
        Some((next, removed))
    }
}

/// Checks that everything in a tree can have an inode number. The tree has `own` inodes with own numbers; `layers`
/// are the slot and the number of zTOC entries of each layer.
pub(super) fn check(
    slot: TreeSlot,
    own: usize,
    layers: impl Iterator<Item = (LayerSlot, usize)>,
) -> Result<(), AddTreeError> {
    if slot.0 >= 1 << TREE_BITS {
        return Err(AddTreeError::NoSuchTreeSlot(slot));
    }
    // The last index is the state directory's, and the first one is not used.
    if own as u64 > INDEX_MASK - 1 {
        return Err(AddTreeError::TooManyDirectories(own));
    }
    for (position, (slot, entries)) in layers.enumerate() {
        if slot.0 >= 1 << LAYER_BITS {
            return Err(AddTreeError::NoSuchLayerSlot(slot));
        }
        if entries > 1 << INDEX_BITS {
            return Err(AddTreeError::TooManyEntries { position, entries });
        }
    }
    Ok(())
}
