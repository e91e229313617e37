//! Inode numbers.
//!
//! They are computed, not counted, so that they mean the same after a restart. They stay below 2^48, because
//! overlayfs with `xino` needs the bits above:
//!
//! ```text
//! bit 47  46         26                 0
//!      0   0  [ tree ]  [ own number + 1 ]   directories and whiteouts of a tree
//!      0   0  [ tree ]  [      all ones  ]   the state directory of a tree
//!      0   1  [         counter          ]   state files
//!      1  [  layer   ]  [ zTOC entry     ]   all else: the same in every tree that has the layer
//! ```
//!
//! Tree 0 with own number 0 is 1, the root of the file system as FUSE has it.

use std::fmt;

/// The place of a tree in the forest: what its directories' inode numbers are made of. From 1 on in a forest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeSlot(pub u32);

/// The place of a layer in the forest: what its files' inode numbers are made of. A pair of layer and zTOC has one
/// slot, in however many trees it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerSlot(pub u32);

impl fmt::Display for TreeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LayerSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Inode number of the root of the file system.
pub const ROOT: u64 = 1;

pub(super) const INDEX_BITS: u32 = 26;
pub(super) const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
pub(super) const LAYER_BITS: u32 = 21;
pub(super) const TREE_BITS: u32 = 20;
const STATE: u64 = 1 << 46;
const FILE: u64 = 1 << 47;
const END: u64 = 1 << 48;

/// Numbers that there are for state files.
pub(super) const STATE_FILES: u64 = STATE;

/// An inode number, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// A directory or whiteout of a tree, by its own number in it.
    Own(TreeSlot, u32),
    /// The state directory of a tree.
    StateDirectory(TreeSlot),
    /// A state file, by a counter.
    StateFile(u64),
    /// An entry of a layer.
    File(LayerSlot, u32),
}

impl Number {
    /// Takes an inode number apart; `None` if no file can have it.
    pub(super) fn decode(number: u64) -> Option<Self> {
        let index = (number & INDEX_MASK) as u32;
        if number >= END {
            None
        } else if number & FILE != 0 {
            Some(Self::File(LayerSlot(((number & !FILE) >> INDEX_BITS) as u32), index))
        } else if number & STATE != 0 {
            Some(Self::StateFile(number & !STATE))
        } else {
            let slot = TreeSlot((number >> INDEX_BITS) as u32);
            match u64::from(index) {
                0 => None,
                INDEX_MASK => Some(Self::StateDirectory(slot)),
                _ => Some(Self::Own(slot, index - 1)),
            }
        }
    }

    /// The inode number. `TreeTable::add_tree` has checked that all parts fit, or they came from [`Number::decode`].
    pub(super) fn encode(self) -> u64 {
        match self {
            Self::Own(slot, own) => u64::from(slot.0) << INDEX_BITS | (u64::from(own) + 1),
            Self::StateDirectory(slot) => u64::from(slot.0) << INDEX_BITS | INDEX_MASK,
            Self::StateFile(counter) => STATE | (counter % STATE_FILES),
            Self::File(slot, entry) => FILE | u64::from(slot.0) << INDEX_BITS | u64::from(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_and_stay_below_2_to_the_48() {
        let trees = [0, 1, 77, (1 << 20) - 1].map(TreeSlot);
        let own = [0, 1, 12_345, (1 << 26) - 3];
        let layers = [0, 1, 77, (1 << 21) - 1].map(LayerSlot);
        let entries = [0, 1, 12_345, (1 << 26) - 1];
        let mut all: Vec<Number> = Vec::new();
        for (tree, layer) in trees.into_iter().zip(layers) {
            all.push(Number::StateDirectory(tree));
            all.extend(own.map(|own| Number::Own(tree, own)));
            all.extend(entries.map(|entry| Number::File(layer, entry)));
        }
        all.extend([0, 1, (1 << 46) - 1].map(Number::StateFile));
        let mut seen = std::collections::HashSet::new();
        for number in all {
            assert!((1..1 << 48).contains(&number.encode()), "{number:?}");
            assert_eq!(Number::decode(number.encode()), Some(number));
            assert!(seen.insert(number.encode()), "{number:?}");
        }
        assert_eq!(Number::Own(TreeSlot(0), 0).encode(), ROOT);
    }

    #[test]
    fn what_can_be_no_number_is_none() {
        for number in [0, 1 << 26, 5 << 26, 1 << 48, u64::MAX] {
            assert_eq!(Number::decode(number), None, "{number:#x}");
        }
    }
}
