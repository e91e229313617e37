//! What is verified, and why it cannot be.

use std::sync::Arc;

use registry::{Client, Descriptor, Digest, Repository};

use crate::build::DEFAULT_MEMORY;
use crate::discover::DiscoverError;
use crate::image::PlatformImage;
use crate::source::{ImageSource, SourceError};
use crate::store::Store;

/// How to verify.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The index to check, instead of the one that is found.
    pub index: Option<Digest>,
    /// Layers that are checked at the same time.
    pub parallel_layers: usize,
    /// Bytes that the layers in work may hold together, as in [`crate::build::BuildOptions`].
    pub memory: u64,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { index: None, parallel_layers: cores, memory: DEFAULT_MEMORY }
    }
}

/// Why an index could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The image could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The index could not be looked for.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// There is none.
    #[error("{0} has no SOCI index, neither beside it nor in the artifact store")]
    NoIndex(Digest),
    /// The index asked for is not there.
    #[error("there is no SOCI index {0}, neither beside the image nor in the artifact store")]
    NoSuchIndex(Digest),
}

/// An image, and where to look for its index.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The image is read from here.
    pub source: &'a Arc<dyn ImageSource>,
    /// What the image's name stands for.
    pub root: &'a Descriptor,
    /// The manifest whose index is checked.
    pub image: &'a PlatformImage,
    /// Where zTOCs are that the artifact store does not have: the source, or the registry of an image in containerd.
    pub artifacts: &'a Arc<dyn ImageSource>,
    /// The registry, for an image in one.
    pub registry: Option<(&'a Client, &'a Repository)>,
    /// The artifact store.
    pub store: &'a Store,
}
