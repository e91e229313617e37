//! What a snapshotter is made of. What containerd asks of it is in the modules beside this one.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

use super::error::SnapshotError;
use super::idmap::mapper::IdMapper;
use super::keyed_lock::KeyedLock;
use super::layout::Layout;
use super::pull::Images;
use super::store::{SnapshotStore, StoreError};
use super::trees::Trees;
use crate::content::cache::CacheRoot;
use crate::foresight::recorded::Prefetch;
use crate::image::OpenLayers;

/// A containerd snapshotter.
pub struct Snapshotter {
    pub(super) layout: Layout,
    pub(super) store: Arc<SnapshotStore>,
    pub(super) layers: Arc<OpenLayers>,
    pub(super) cache: Arc<CacheRoot>,
    pub(super) images: Arc<Images>,
    pub(super) trees: Arc<Trees>,
    pub(super) prefetch: Arc<Prefetch>,
    pub(super) overlay_options: Vec<String>,
    pub(super) id_mapper: IdMapper,
    /// Something was removed.
    pub(super) removed: Notify,
    /// The last clean-up had to leave something.
    pub(super) left: AtomicBool,
    /// Each layer is made by one request at a time; those for the same layer then find it there.
    pub(super) turns: KeyedLock,
    /// Where else layers are is noted by one at a time.
    pub(super) noting: tokio::sync::Mutex<()>,
    /// One clean-up at a time.
    pub(super) cleaning: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Snapshotter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshotter").field("root", &self.layout.root()).finish_non_exhaustive()
    }
}

impl Snapshotter {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &std::path::Path {
        self.layout.root()
    }

    /// The trees that are mounted.
    #[must_use]
    pub fn trees(&self) -> &Trees {
        &self.trees
    }

    /// The layers that are read lazily.
    #[must_use]
    pub fn layers(&self) -> &OpenLayers {
        &self.layers
    }

    /// Recordings of starts, and their replays.
    #[must_use]
    pub fn prefetch(&self) -> &Prefetch {
        &self.prefetch
    }

    /// What has been fetched.
    #[must_use]
    pub fn cache(&self) -> &CacheRoot {
        &self.cache
    }

    /// The store, for those who may wait for the disk.
    pub(crate) fn store_ref(&self) -> &SnapshotStore {
        &self.store
    }

    /// Calls the store on a thread that may wait for the disk.
    pub(super) async fn store<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&SnapshotStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let store = Arc::clone(&self.store);
        Ok(tokio::task::spawn_blocking(move || call(&store)).await??)
    }
}
