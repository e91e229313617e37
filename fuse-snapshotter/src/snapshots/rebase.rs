//! Layers that are prepared without the snapshot below them: containerd's parallel unpack.
//!
//! A containerd of version 2.2 or later that is told that a snapshotter has the capability `rebase` prepares all layers of an
//! image without a parent, unpacks those that it gets mounts for at the same time, and names the parent when it commits them,
//! bottom first. So that this works with layers that are made here, and read lazily:
//!
//! * Which layers are below one is found out from its labels (containerd 2.3), or from the image's configuration.
//! * A layer that is made here is committed at once, over the snapshot of the layers below. containerd then looks for it
//!   among the snapshots without a parent, because it has named none ([`list`]). From then on it knows the image by its topmost
//!   snapshot only; those below stay because that one is over them.
//! * Where the layers below are still being unpacked by containerd there is nothing yet to commit it over, so containerd has
//!   to unpack this one as well.
//! * containerd gets an overlay over an empty directory to unpack into: given a plain directory, it would take whiteouts for
//!   what is to be removed there and then, and forget them.

use std::sync::Arc;

use soci_index::oci::chain_id_over;

use super::error::{SnapshotError, io_error};
use super::filter::Filter;
use super::store::{Info, Kind, Labels, Snapshot, SnapshotStore, StoreError};
use super::{Snapshotter, labels};
use crate::images::{LayerRequest, Position};

/// Whether a snapshot is a layer that containerd unpacks without having named its parent.
pub(super) fn gets_parent_later(snapshot: &Snapshot) -> bool {
    snapshot.kind == Kind::Active
        && snapshot.parents.is_empty()
        && snapshot.labels.contains_key(labels::PARENT_LATER)
}

/// What the labels of a Prepare say about the place of the layer that `target` is the chain ID of. `None` if containerd is
/// too old to give them.
fn position_by_labels(target: &str, given: &Labels) -> Option<Position> {
    let diff_id = given.get(labels::DIFF_ID).filter(|diff_id| !diff_id.is_empty())?;
    if diff_id == target {
        return Some(Position::Lowest);
    }
    Some(match given.get(labels::PARENT_CHAIN_ID) {
        Some(below) if chain_id_over(below, diff_id) == target => Position::Over(below.clone()),
        _ => Position::Unknown(format!("its labels do not say which layers are below {target}")),
    })
}

/// The snapshots that `filter` matches. A snapshot that is asked for by the chain ID it is for and by having no parent is
/// found in any case, and shown without one: whoever asks so has prepared it without one.
pub(super) fn list(store: &SnapshotStore, filter: &Filter) -> Result<Vec<Info>, StoreError> {
    let found = store.list(filter)?;
    match filter.asks_without_parent(labels::TARGET) {
        Some(chain) if found.is_empty() => {
            let found = committed_as(store, chain)?;
            Ok(found.map(|info| Info { parent: String::new(), ..info }).into_iter().collect())
        }
        _ => Ok(found),
    }
}

/// A committed snapshot of the layers that have this chain ID; the one of that name if there is one.
fn committed_as(store: &SnapshotStore, chain: &str) -> Result<Option<Info>, StoreError> {
    let is_one = |info: &Info| {
        info.kind == Kind::Committed && info.labels.get(labels::TARGET).is_some_and(|target| target == chain)
    };
    match store.stat(chain) {
        Ok(info) if is_one(&info) => return Ok(Some(info)),
        Ok(_) | Err(StoreError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(store.list(&Filter::ALL)?.into_iter().find(is_one))
}

impl Snapshotter {
    /// Where in its image a layer is that is prepared without a parent.
    pub(super) async fn position(
        &self,
        request: Result<&LayerRequest, String>,
        target: &str,
        given: &Labels,
    ) -> Position {
        match (position_by_labels(target, given), request) {
            (Some(position), _) => position,
            (None, Ok(request)) => self.images.position(request).await,
            (None, Err(reason)) => Position::Unknown(reason),
        }
    }

    /// The name of a committed snapshot of the layers that have this chain ID.
    pub(super) async fn committed_as(self: &Arc<Self>, chain: &str) -> Result<Option<String>, SnapshotError> {
        let chain = chain.to_owned();
        let found = self.store(move |store| committed_as(store, &chain)).await?;
        Ok(found.map(|info| info.name))
    }

    /// Gives an upper directory the owner and mode of the root directory below it now that it is known what that is, unless the
    /// layer says what its root is like.
    pub(super) async fn inherit_root_late(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        parent: &str,
    ) -> Result<(), SnapshotError> {
        let path = self.layout.fs(snapshot.id);
        if !self.layout.is_untouched(snapshot.id).map_err(io_error("read", &path))? {
            return Ok(());
        }
        let below = {
            let parent = parent.to_owned();
            self.store(move |store| store.get_any(&parent)).await?
        };
        self.take_over_root(snapshot, &below.as_chain()).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_say_where_a_layer_is() {
        let target = chain_id_over("sha256:below", "sha256:diff");
        assert_eq!(position_by_labels(&target, &given(&[])), None);
        assert_eq!(position_by_labels(&target, &given(&[(labels::DIFF_ID, "")])), None);
        assert_eq!(
            position_by_labels(&target, &given(&[(labels::DIFF_ID, &target)])),
            Some(Position::Lowest)
        );
        let both = [(labels::DIFF_ID, "sha256:diff"), (labels::PARENT_CHAIN_ID, "sha256:below")];
        assert_eq!(
            position_by_labels(&target, &given(&both)),
            Some(Position::Over("sha256:below".to_owned()))
        );
        for wrong in [
            &[(labels::DIFF_ID, "sha256:diff")][..],
            &[(labels::DIFF_ID, "sha256:diff"), (labels::PARENT_CHAIN_ID, "sha256:other")],
        ] {
            let position = position_by_labels(&target, &given(wrong));
            assert!(matches!(position, Some(Position::Unknown(_))), "{position:?}");
        }
    }
}
