//! Settings of pulls.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use soci_index::store::Store;

use super::chosen::ChosenIndexes;
use crate::base::metrics::Metrics;
use crate::foresight::recorded::Prefetch;
use crate::image::LocalContent;

/// What containerd has of an image, in the namespace that is pulled into.
pub type ContentOfNamespace = Arc<dyn Fn(&str) -> Vec<Arc<dyn LocalContent>> + Send + Sync>;

/// Settings of [`super::Images`].
#[derive(Clone)]
pub struct ImageOptions {
    /// How long making a layer ready for lazy reading may take.
    pub mount_timeout: Duration,
    /// Layers smaller than this, in bytes, are not read lazily.
    pub min_layer_size: u64,
    /// Layers whose zTOC is larger than so many percent of them are not read lazily, unless they are small; `None` for
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
    /// Layers of all images that are.
    pub all_parallel_unpacks: usize,
    /// Layers of all images that are made ready for lazy reading at the same time.
    pub parallel_layers: usize,
    /// The local artifact store, where `soci create` leaves indexes that were not pushed.
    pub store: Option<Store>,
    /// containerd's socket, if the blobs of that store are in its content store.
    pub artifacts_in: Option<PathBuf>,
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

impl std::fmt::Debug for ImageOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageOptions").finish_non_exhaustive()
    }
}
