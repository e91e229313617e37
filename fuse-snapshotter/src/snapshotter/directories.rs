//! The directories of a snapshot itself, and what their root is like.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::error::{SnapshotError, io_error};
use super::idmap::mapped_owner;
use super::rebase;
use super::service::Snapshotter;
use super::store::{Kind, Node, Snapshot};

impl Snapshotter {
    /// The directories of a snapshot that does not only consist of others'.
    pub(super) fn make_directories(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let path = self.layout.fs(snapshot.id);
        let later = rebase::gets_parent_later(snapshot);
        let work = snapshot.kind == Kind::Active && (later || !snapshot.parents.is_empty());
        let lower = if later { self.layout.make_lower(snapshot.id) } else { Ok(()) };
        let made = lower.and_then(|()| self.layout.make(snapshot.id, work));
        made.map_err(io_error("create", &path))
    }

    /// Gives a new upper directory the owner and mode of the root directory below it, which it hides.
    pub(super) async fn inherit_root(self: &Arc<Self>, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        if snapshot.parents.is_empty() {
            // The container's root is to own it.
            let (uid, gid) = mapped_owner(&snapshot.labels, 0, 0)?;
            let path = self.layout.fs(snapshot.id);
            return std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(io_error("chown", &path));
        }
        self.take_over_root(snapshot, &snapshot.parents).await
    }

    /// Gives the directory of a snapshot the owner and mode of the root directory that a chain of snapshots shows.
    pub(super) async fn take_over_root(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        chain: &[Node],
    ) -> Result<(), SnapshotError> {
        let lower = self.lower(chain).await?;
        let (Some((uid, gid)), Some(mode)) = (lower.owner()?, lower.mode()?) else { return Ok(()) };
        let (uid, gid) = mapped_owner(&snapshot.labels, uid, gid)?;
        let path = self.layout.fs(snapshot.id);
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(io_error("chown", &path))?;
        let mode = PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).map_err(io_error("chmod", &path))
    }
}
