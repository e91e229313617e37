//! A file system that is mounted and served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Notifier, Session};

use super::front::Front;
use super::fuse::negotiated::Negotiated;
use super::mount_point::{detach_if_mounted, is_mounted};
use super::session::Handshake;
use super::stats::FuseStats;

/// A mounted and served file system. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    stats: Arc<FuseStats>,
    session: Option<BackgroundSession>,
    /// None if the kernel's EROFS serves names and attributes.
    metadata: Option<ServedMetadata>,
    /// For an ordinary user: unmounts by `fusermount3` when it is dropped.
    user_mount: Option<UserMount>,
}

/// What belongs to a file system whose names and attributes this process serves.
#[derive(Debug)]
struct ServedMetadata {
    negotiated: Negotiated,
    /// Tells the kernel what to forget. Others hold it weakly: the connection ends with the last descriptor of its
    /// device.
    _notifier: Arc<Notifier>,
}

/// What `fuser` needs to unmount for an ordinary user.
pub(super) type UserMount = Session<Handshake<Negotiated>>;

impl Mounted {
    /// A file system that EROFS serves, with contents from this session.
    pub(super) fn by_erofs(path: &Path, stats: Arc<FuseStats>, session: BackgroundSession) -> Self {
        Self { path: path.to_owned(), stats, session: Some(session), metadata: None, user_mount: None }
    }

    /// A file system that this session serves. `notifier` is dropped with it.
    pub(super) fn by_fuse(
        path: PathBuf,
        stats: Arc<FuseStats>,
        session: BackgroundSession,
        negotiated: Negotiated,
        notifier: Arc<Notifier>,
        user_mount: Option<UserMount>,
    ) -> Self {
        let metadata = Some(ServedMetadata { negotiated, _notifier: notifier });
        Self { path, stats, session: Some(session), metadata, user_mount }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What serves names and attributes: never [`Front::Auto`].
    #[must_use]
    pub fn front(&self) -> Front {
        if self.metadata.is_some() { Front::Fuse } else { Front::Erofs }
    }

    /// What the kernel has asked so far.
    #[must_use]
    pub fn stats(&self) -> &FuseStats {
        &self.stats
    }

    /// What was agreed with the kernel, if this process serves names and attributes.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.metadata.as_ref().map(|metadata| &metadata.negotiated)
    }

    /// Whether it has been unmounted, by whomever, and is used no more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Leaves the mount where it is, for a process that ends: it is served until then. After that, a reader gets
    /// errors instead of empty directories.
    pub fn leave(mut self) {
        self.session = None;
        std::mem::forget(self.user_mount.take());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if session.guard.is_finished() && is_mounted(&self.path) {
            tracing::error!(path = %self.path.display(), "the mount was served no longer");
        }
        if self.user_mount.is_none() {
            detach_if_mounted(&self.path);
        }
        // The threads end when the last user of the mount has left, which is not waited for.
    }
}
