//! What to mount, and how.

use std::path::PathBuf;

use registry::Digest;
use soci_index::image::PlatformChoice;

use crate::fronts::Front;

/// What to mount, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Read layers lazily where possible. Without it every layer is unpacked, to compare.
    pub lazy: bool,
    /// Use this index and no other.
    pub index: Option<Digest>,
    /// Of an image for several platforms, the one to mount.
    pub platform: PlatformChoice,
    /// Fetch the rest of the image while nobody reads.
    pub background: bool,
    /// Root directory: the cache and unpacked layers go there.
    pub root: PathBuf,
    /// Largest size of the cache, in bytes.
    pub cache_size: u64,
    /// Whether other users may look into the mount. Root's mounts are always open, as `/` is.
    pub allow_other: bool,
    /// What serves lazily read layers to the kernel.
    pub front: Front,
}
