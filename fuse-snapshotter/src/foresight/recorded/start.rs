//! A start that can be recorded or replayed, and the settings for that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry::Digest;

use crate::fronts::forest::Forest;
use crate::image::OpenLayer;

/// Settings of [`super::Prefetch`].
#[derive(Debug, Clone, Copy)]
pub struct PrefetchOptions {
    /// Fetch what a recording, or an artifact, says will be read.
    pub replay: bool,
    /// Record starts.
    pub record: bool,
    /// Guess what will be read where nothing says it.
    pub forecast: bool,
    /// Requests of an image's replay at the same time. Each image has its own: another one's registry may be dead.
    pub requests: usize,
    /// A recording ends when nothing new was read for so long.
    pub quiet: Duration,
    /// And after this time in any case.
    pub longest: Duration,
}

impl Default for PrefetchOptions {
    fn default() -> Self {
        Self {
            replay: true,
            record: true,
            forecast: true,
            requests: 4,
            quiet: Duration::from_secs(5),
            longest: Duration::from_secs(120),
        }
    }
}

/// A container that is about to be started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its own snapshot.
    pub snapshot: u64,
    /// The directory that what it writes goes to.
    pub upper: PathBuf,
    /// The file system that it reads its layers from.
    pub forest: Option<Arc<Forest>>,
    /// The name that its image was pulled by.
    pub image: String,
    /// Digest of the image's manifest.
    pub manifest: Digest,
    /// Digest of the SOCI index in use.
    pub index: Digest,
    /// The layers that are read lazily, bottom first.
    pub layers: Vec<Arc<OpenLayer>>,
}
