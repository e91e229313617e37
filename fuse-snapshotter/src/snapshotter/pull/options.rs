//! Settings of pulls, and what pulls find on this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use soci_index::store::Store;
use tokio::sync::Semaphore;

use super::chosen::ChosenIndexes;
use crate::base::metrics::Metrics;
use crate::foresight::recorded::Prefetch;
use crate::image::LocalContent;

/// What stands for no limit.
pub const UNLIMITED: usize = Semaphore::MAX_PERMITS;

/// What containerd has of an image, in the namespace that is pulled into.
pub type ContentOfNamespace = Arc<dyn Fn(&str) -> Vec<Arc<dyn LocalContent>> + Send + Sync>;

/// How images are pulled, and which of their layers are read lazily.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// How long making a layer ready for lazy reading may take.
    pub mount_timeout: Duration,
    /// Layers smaller than this, in bytes, are not read lazily.
    pub min_layer_size: u64,
    /// A layer whose zTOC is larger than this share of it, in percent, is not read lazily, unless it is small. `None`:
    /// no limit.
    pub max_ztoc_percent: Option<u64>,
    /// Use indexes of version 1.
    pub v1: bool,
    /// Use indexes of version 2.
    pub v2: bool,
    /// Indexes that are used where the client names none.
    pub chosen_indexes: ChosenIndexes,
    /// Unpack all layers of images, and read none lazily.
    pub always_unpack: bool,
    /// Unpack the layers of images without an index, too, instead of leaving them to containerd.
    pub unpack_without_index: bool,
    /// Layers of one image that are fetched and unpacked at the same time.
    pub parallel_unpacks: usize,
    /// The same limit for the layers of all images.
    pub all_parallel_unpacks: usize,
    /// Layers of all images that are made ready for lazy reading at the same time.
    pub parallel_layers: usize,
    /// containerd's socket, if the blobs of the local artifact store are in its content store.
    pub artifacts_in: Option<PathBuf>,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            mount_timeout: Duration::from_secs(30),
            min_layer_size: 0,
            max_ztoc_percent: None,
            v1: true,
            v2: true,
            chosen_indexes: ChosenIndexes::default(),
            always_unpack: false,
            unpack_without_index: false,
            parallel_unpacks: 3,
            all_parallel_unpacks: 3,
            parallel_layers: 8,
            artifacts_in: None,
        }
    }
}

impl PullOptions {
    /// The same, with limits that let something through.
    pub(super) fn at_least_one(mut self) -> Self {
        for limit in [&mut self.parallel_unpacks, &mut self.all_parallel_unpacks, &mut self.parallel_layers] {
            *limit = (*limit).max(1);
        }
        self
    }
}

/// What pulls find on this machine, and whom they tell what.
#[derive(Clone)]
pub struct Surroundings {
    /// The local artifact store, where `soci create` leaves indexes that were not pushed.
    pub store: Option<Store>,
    /// Gives the content that containerd has in a namespace.
    pub content: ContentOfNamespace,
    /// Marks of unpacked layers are those of overlayfs in a user namespace.
    pub user_xattr: bool,
    /// Says why a lazy layer cannot be served at all, if so: then all layers are unpacked.
    pub obstacle: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// Where what happens is counted.
    pub metrics: Arc<Metrics>,
    /// Fetches ahead what the image's container will read.
    pub prefetch: Arc<Prefetch>,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}
