//! Trees of lazy layers with other owners, served beside the original.
//!
//! A file's inode is the same in all trees that have its layer, and so has one owner. So layers have other numbers for
//! each mapping: in a space of their own, so that the clean-up of layers does not take them for layers. Containers with
//! the same mapping share these, and thereby the page cache. The tree itself is the original's, which is not held
//! twice.
//!
//! Like other numbers they stay the same over a restart: overlayfs notes in the upper directory which file a copied one
//! comes from, by its inode number.

use std::collections::HashSet;

use rustix::mount::mount_bind;

use super::labels;
use crate::base::lock::lock;
use crate::fronts::forest::{AddTreeError, IdMaps, LayerSlot, TreeSlot};
use crate::snapshotter::error::{SnapshotError, io_error};
use crate::snapshotter::layer_runs::LazyRun;
use crate::snapshotter::number_spaces::{self, FIRST_MAPPED_SLOT, MAPPED_LAYERS, TREES};
use crate::snapshotter::record::Record;
use crate::snapshotter::service::Snapshotter;
use crate::snapshotter::store::{Kind, SnapshotStore, StoreError};

/// The name of a tree for a container.
fn tree_name(of: u64, container: u64) -> String {
    format!("{of}_{container}")
}

/// The names of a run's layers, bottom first, in the space [`MAPPED_LAYERS`].
fn layer_names(layers: &[Record], ids: &IdMaps) -> impl Iterator<Item = String> {
    let mapping = labels::name(ids);
    layers.iter().filter_map(Record::lazy).map(move |key| format!("{key} {mapping}"))
}

fn slot(number: u32) -> Result<LayerSlot, SnapshotError> {
    let number = Some(number).filter(|number| *number < FIRST_MAPPED_SLOT).ok_or_else(|| {
        SnapshotError::Unavailable(
            "too many mappings of ids were used since the start; restart soci-snapshotter-grpc when no container in a \
             user namespace is left"
                .to_owned(),
        )
    })?;
    Ok(LayerSlot(FIRST_MAPPED_SLOT + number))
}

impl Snapshotter {
    /// Serves the tree of a run, which is mounted, once more with the owners of a container, and mounts it for that.
    pub(super) fn mount_translated(
        &self,
        run: &LazyRun,
        ids: &IdMaps,
        container: u64,
    ) -> Result<(), SnapshotError> {
        let unavailable = |error: AddTreeError| {
            SnapshotError::Unavailable(format!(
                "cannot serve snapshot {} with other owners: {error}",
                run.top
            ))
        };
        let of = TreeSlot(self.store.number(TREES, &run.top.to_string())?);
        let forest = self.trees.mounted().ok_or(AddTreeError::NoTree(of)).map_err(unavailable)?;
        let name = tree_name(run.top, container);
        let tree = TreeSlot(self.store.number(TREES, &name)?);
        if !forest.contains(tree) {
            // So that no number is forgotten before it is in use.
            let _numbering = lock(&self.id_mapper.numbering);
            let numbers =
                layer_names(&run.layers, ids).map(|name| slot(self.store.number(MAPPED_LAYERS, &name)?));
            let layers = numbers.collect::<Result<Vec<_>, _>>()?;
            forest.add_translated_tree(of, tree, &name, &layers, ids.clone()).map_err(unavailable)?;
        }
        let target = self.layout.mapped(run.top, container);
        mount_bind(self.layout.trees().join(&name), &target).map_err(|error| {
            forest.remove_tree(tree);
            io_error("mount a tree at", &target)(error.into())
        })
    }

    /// Stops to serve a tree for a container, if one is.
    pub(super) fn remove_translated(&self, of: u64, container: u64) {
        let name = tree_name(of, container);
        let known = self.store.find_number(TREES, &name);
        if let (Some(forest), Ok(Some(slot))) = (self.trees.mounted(), &known) {
            forest.remove_tree(TreeSlot(*slot));
        }
        if !matches!(known, Ok(None))
            && let Err(error) = self.store.forget_number(TREES, &name)
        {
            tracing::warn!(snapshot = of, container, %error, "cannot forget the number of a tree");
        }
    }

    /// How many layers with other owners are known, with one that keeps their numbers from beginning anew.
    ///
    /// # Errors
    /// Those of the store.
    pub fn mapped_layers(&self) -> Result<usize, SnapshotError> {
        Ok(self.store.numbers(MAPPED_LAYERS)?.len())
    }

    /// Forgets the numbers of layers that no container has with these owners any more.
    pub(in crate::snapshotter) fn forget_mapped_layers(&self) -> Result<(), SnapshotError> {
        let _numbering = lock(&self.id_mapper.numbering);
        let known = number_spaces::names(&self.store, MAPPED_LAYERS)?;
        if known.is_empty() {
            return Ok(());
        }
        let used = used_names(&self.store)?;
        for name in known {
            if !used.contains(&name) {
                self.store.forget_number(MAPPED_LAYERS, &name)?;
            }
        }
        Ok(())
    }
}

/// The names of the layers of all containers that have a mapping.
fn used_names(store: &SnapshotStore) -> Result<HashSet<String>, SnapshotError> {
    let mut used = HashSet::new();
    for (key, kind) in store.ids()?.into_values() {
        if kind == Kind::Committed {
            continue;
        }
        let snapshot = match store.get(&key) {
            Ok(snapshot) => snapshot,
            // Removed or committed a moment ago.
            Err(StoreError::NotFound(_) | StoreError::FailedPrecondition(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        // Labels that make no sense never had a tree.
        if let Ok(Some(ids)) = labels::mapping(&snapshot.labels) {
            let records: Vec<_> = snapshot.parents.iter().filter_map(Record::of).collect();
            used.extend(layer_names(&records, &ids));
        }
    }
    Ok(used)
}
