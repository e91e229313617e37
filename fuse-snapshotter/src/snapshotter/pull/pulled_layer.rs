//! What becomes of a layer.

use std::path::PathBuf;
use std::sync::Arc;

use registry::{Descriptor, Digest};
use ztoc::Ztoc;

use super::error::WhyDeferred;
use super::scratch::Scratch;
use crate::content::tree::{Below, OverlayNamespace, Tree, TreeError};
use crate::image::{OpenLayer, WhyNotLazy};

/// A layer that a pull has made ready, or not.
#[derive(Debug, Clone)]
pub enum PulledLayer {
    /// It is read lazily.
    Lazy(LazyPulledLayer),
    /// It is unpacked on this disk.
    Unpacked(UnpackedLayer),
    /// containerd is to do it.
    Deferred(WhyDeferred),
}

/// A layer that is read lazily.
#[derive(Debug, Clone)]
pub struct LazyPulledLayer {
    /// The layer; held so that it is not removed before it is committed.
    pub layer: Arc<OpenLayer>,
    /// Its zTOC, for the tree.
    pub ztoc: Arc<Ztoc>,
    /// The index that named the zTOC.
    pub index: Digest,
    /// Size of the compressed layer in bytes.
    pub size: u64,
    /// Whether it has hard links to files of layers below, so that it depends on these whether it can be mounted.
    pub links_below: bool,
}

/// A layer that is unpacked.
#[derive(Debug, Clone)]
pub struct UnpackedLayer {
    /// Where.
    pub scratch: Arc<Scratch>,
    /// Directories that it has something in but does not mention itself.
    pub implied: Arc<Vec<PathBuf>>,
    /// Size of the compressed layer in bytes.
    pub size: u64,
    /// Why it is not read lazily.
    pub why: WhyNotLazy,
}

/// Where in its image a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Nothing is below it.
    Lowest,
    /// Others are below it.
    Higher,
}

/// Whether a layer makes sense over the lazy layers right below it, which come bottom first.
pub(in crate::snapshotter) fn check_over(below: &[Arc<Ztoc>], layer: &Ztoc) -> Result<(), TreeError> {
    let ztocs: Vec<_> = below.iter().map(|ztoc| &**ztoc).chain([layer]).collect();
    Tree::merge(&ztocs, Below::Layers(OverlayNamespace::Trusted)).map(|_| ())
}

/// Whether a layer of an image is the topmost one.
pub(super) fn is_topmost(layers: &[Descriptor], layer: &Digest) -> bool {
    layers.last().is_some_and(|last| last.digest == *layer)
}
