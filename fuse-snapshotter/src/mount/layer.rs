//! One layer, ready to be mounted.

use std::path::PathBuf;
use std::sync::Arc;

use registry::Descriptor;
use ztoc::Ztoc;

use super::report::LayerReport;
use crate::content::LazyLayer;
use crate::image::assemble::PreparedLayer;
use crate::image::{Served, UnpackFailure, WhyNotLazy};

/// One layer, ready to be mounted.
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    pub(super) content: LayerContent,
}

/// Where the content of a layer is.
pub(super) enum LayerContent {
    /// In the registry.
    Lazy(TreeLayer),
    /// In a copy that was fetched beforehand, and which a tree shows.
    Copied { tree: TreeLayer, why: WhyNotLazy, not_unpacked: Option<UnpackFailure> },
    /// In this directory, where these sub-directories are only implied.
    Unpacked { directory: PathBuf, implied: Vec<PathBuf>, why: WhyNotLazy },
}

/// A layer that a tree shows.
pub(super) struct TreeLayer {
    layer: Arc<LazyLayer>,
    /// Until the tree is there.
    ztoc: Option<Arc<Ztoc>>,
}

impl From<PreparedLayer> for TreeLayer {
    fn from(prepared: PreparedLayer) -> Self {
        Self { layer: prepared.layer, ztoc: Some(prepared.ztoc) }
    }
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("digest", &self.descriptor.digest).finish_non_exhaustive()
    }
}

impl Layer {
    fn tree(&self) -> Option<&TreeLayer> {
        match &self.content {
            LayerContent::Lazy(tree) | LayerContent::Copied { tree, .. } => Some(tree),
            LayerContent::Unpacked { .. } => None,
        }
    }

    /// The layer, if a tree shows it.
    pub(super) fn lazy(&self) -> Option<&Arc<LazyLayer>> {
        self.tree().map(|tree| &tree.layer)
    }

    pub(super) fn ztoc(&self) -> Option<&Ztoc> {
        self.tree()?.ztoc.as_deref()
    }

    pub(super) fn forget_ztoc(&mut self) {
        if let LayerContent::Lazy(tree) | LayerContent::Copied { tree, .. } = &mut self.content {
            tree.ztoc = None;
        }
    }

    /// Where it was unpacked, and which of its directories it does not mention itself.
    pub(super) fn unpacked(&self) -> Option<(&PathBuf, &[PathBuf])> {
        match &self.content {
            LayerContent::Unpacked { directory, implied, .. } => Some((directory, implied)),
            LayerContent::Lazy(_) | LayerContent::Copied { .. } => None,
        }
    }

    pub(super) fn report(&self) -> LayerReport {
        let size = self.descriptor.size;
        let mut report = LayerReport {
            digest: self.descriptor.digest.clone(),
            mode: Served::Lazy,
            reason: None,
            size,
            fetched: size,
            requests: 0,
            spans: 0,
            fetched_spans: 0,
            errors: 0,
        };
        match &self.content {
            LayerContent::Lazy(TreeLayer { layer, .. }) => {
                let stats = layer.stats();
                report.fetched = stats.fetched_bytes;
                report.requests = stats.requests;
                report.spans = layer.table().spans().len();
                report.fetched_spans = stats.fetched_spans;
                report.errors = stats.corrupt_spans + stats.refused_entries;
            }
            LayerContent::Copied { why, not_unpacked, .. } => {
                report.mode = Served::Copied;
                report.reason = Some(match not_unpacked {
                    Some(failure) => format!("{why}; {failure}"),
                    None => why.to_string(),
                });
            }
            LayerContent::Unpacked { why, .. } => {
                report.mode = Served::Unpacked;
                report.reason = Some(why.to_string());
            }
        }
        report
    }
}
