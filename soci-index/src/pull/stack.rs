//! The snapshots that an image is unpacked into.

use registry::{Descriptor, Digest};

/// An image's layers, lowest first, and what their snapshots will be.
pub(super) struct Stack<'a> {
    /// The image's name.
    pub(super) name: &'a str,
    pub(super) manifest: &'a Descriptor,
    pub(super) layers: &'a [Descriptor],
    /// As many as layers.
    pub(super) diff_ids: Vec<Digest>,
    /// As many as layers.
    pub(super) chain: Vec<Digest>,
}
