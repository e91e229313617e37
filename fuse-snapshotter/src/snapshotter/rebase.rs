//! Layers that are prepared without the snapshot below them: containerd's parallel unpack.
//!
//! A containerd of version 2.2 or later that is told that a snapshotter has the capability `rebase`, and may unpack
//! more than one layer at a time, prepares all layers of an image without a parent, unpacks those that it gets mounts
//! for, and names the parent when it commits them, bottom first. What is ready when it is prepared is never
//! committed, so containerd would know it without a parent for good: its garbage collection takes the layers below
//! for unused and forgets them, and clients that look for each layer by its chain ID (nerdctl) then find an image of
//! which parts are missing. Nothing that a snapshotter can answer changes that. So the capability is not to be set;
//! where it is all the same, images are whole, but not lazy:
//!
//! * The lowest layer is prepared as ever. It has no parent.
//! * All others are left to containerd, which links each to the one below it as it commits them.
//! * containerd gets an overlay over an empty directory to unpack into: given a plain directory, it would take
//!   whiteouts for what is to be removed there and then, and forget them.

use std::sync::Arc;

use super::error::{SnapshotError, io_error};
use super::labels;
use super::pull::{LayerRequest, Position, RequestError, WhyUnplaced};
use super::service::Snapshotter;
use super::store::{Kind, Labels, Snapshot};

/// Whether a snapshot is a layer that containerd unpacks without having named its parent.
pub(super) fn gets_parent_later(snapshot: &Snapshot) -> bool {
    snapshot.kind == Kind::Active
        && snapshot.parents.is_empty()
        && snapshot.labels.contains_key(labels::PARENT_LATER)
}

/// What the labels of a Prepare say about the place of the layer that `target` is the chain ID of. `None` if
/// containerd is too old to give them.
fn position_by_labels(target: &str, given: &Labels) -> Option<Position> {
    let diff_id = given.get(labels::DIFF_ID).filter(|diff_id| !diff_id.is_empty())?;
    Some(if diff_id == target { Position::Lowest } else { Position::Higher })
}

impl Snapshotter {
    /// Where in its image a layer is that is prepared without a parent.
    pub(super) async fn position(
        &self,
        request: Result<&LayerRequest, RequestError>,
        target: &str,
        given: &Labels,
    ) -> Result<Position, WhyUnplaced> {
        match (position_by_labels(target, given), request) {
            (Some(position), _) => Ok(position),
            (None, Ok(request)) => self.images.position(request).await,
            (None, Err(error)) => Err(error.into()),
        }
    }

    /// Gives an upper directory the owner and mode of the root directory below it now that it is known what that is,
    /// unless the layer says what its root is like.
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
mod tests {
    use super::*;

    #[test]
    fn labels_say_where_a_layer_is() {
        let given = |diff_id: &str| Labels::from([(labels::DIFF_ID.to_owned(), diff_id.to_owned())]);
        assert_eq!(position_by_labels("sha256:a", &Labels::new()), None);
        assert_eq!(position_by_labels("sha256:a", &given("")), None);
        // The chain ID of the lowest layer is its diff_id.
        assert_eq!(position_by_labels("sha256:a", &given("sha256:a")), Some(Position::Lowest));
        assert_eq!(position_by_labels("sha256:a", &given("sha256:b")), Some(Position::Higher));
    }
}
