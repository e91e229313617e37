//! The spaces of numbers in the snapshot store that are part of inode numbers.
//!
//! Inode numbers may begin anew with a new mount, but not as long as one is there: the kernel remembers what it knew
//! under a number. So no space becomes empty while the process runs.

use super::store::{SnapshotStore, StoreError};
use crate::image::{LayerNumbers, NumberError};

/// Layers that are read lazily.
pub(super) const LAYERS: &str = "layers";

/// Trees.
pub(super) const TREES: &str = "trees";

/// Layers with other owners.
pub(super) const MAPPED_LAYERS: &str = "mapped-layers";

/// Slots of layers from this one on are for those with other owners: a half of all.
pub(super) const FIRST_MAPPED_SLOT: u32 = 1 << 20;

/// A name that keeps a space of numbers from becoming empty.
const PLACEHOLDER: &str = "-";

/// Begins all spaces: each has a name in it as long as the process runs.
pub(super) fn begin(store: &SnapshotStore) -> Result<(), StoreError> {
    for space in [LAYERS, TREES, MAPPED_LAYERS] {
        store.forget_number(space, PLACEHOLDER)?;
        store.number(space, PLACEHOLDER)?;
    }
    Ok(())
}

/// The names that have a number in a space, without the one that keeps it from becoming empty.
pub(super) fn names(store: &SnapshotStore, space: &str) -> Result<Vec<String>, StoreError> {
    let names = store.numbers(space)?.into_iter().map(|(name, _)| name);
    Ok(names.filter(|name| name != PLACEHOLDER).collect())
}

impl LayerNumbers for SnapshotStore {
    fn number_of(&self, layer: &str) -> Result<u32, NumberError> {
        Ok(self.number(LAYERS, layer)?)
    }

    fn numbered(&self) -> Result<Vec<String>, NumberError> {
        Ok(names(self, LAYERS)?)
    }

    fn forget(&self, layer: &str) -> Result<(), NumberError> {
        Ok(self.forget_number(LAYERS, layer)?)
    }
}

impl From<StoreError> for NumberError {
    fn from(error: StoreError) -> Self {
        Self(Box::new(error))
    }
}
