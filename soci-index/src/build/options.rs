//! How an index is built.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use registry::Digest;

use crate::manifest::ZtocKind;
use crate::recording::Recording;
use crate::store::{ArtifactKind, Record};

/// More layers than this at a time gain nothing: the network or the disk is the limit by then.
const MAX_PARALLEL_LAYERS: usize = 8;

/// Layers below this size are left alone by default, in bytes: fetching them whole costs less than a zTOC.
pub const DEFAULT_MIN_LAYER_SIZE: u64 = 10 << 20;

/// What the layers in work may hold together by default, in bytes. A layer of 1 GiB needs about 150 MiB at the default span
/// size, so that this is no limit for most images, and a bound for all.
pub const DEFAULT_MEMORY: u64 = 512 << 20;

/// What an index is built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// Uncompressed bytes between checkpoints.
    pub span_size: u64,
    /// Layers with fewer compressed bytes get no zTOC.
    pub min_layer_size: u64,
    /// Build zTOCs that the store has already.
    pub force: bool,
    /// Mark layers without extended attributes, so that the snapshotter answers for them itself.
    pub optimize_xattrs: bool,
    /// Files to prefetch, as paths in the image. The spans that hold them go into a prefetch artifact per layer; what is not
    /// found is reported and left out.
    pub prefetch_files: Vec<String>,
    /// What was recorded of a start of an image with these layers: the spans that were read go into a prefetch artifact per
    /// layer, in the order of reading.
    pub recording: Option<Arc<Recording>>,
    /// Build tool identifier, part of every zTOC and so of every digest.
    pub tool: String,
    /// Layers that are built at the same time, if their memory allows. Each takes one core.
    pub parallel_layers: usize,
    /// Bytes that the layers in work may hold together. A single layer that needs more gets it, with no other beside it.
    pub memory: u64,
}

impl Default for BuildOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            span_size: ztoc::DEFAULT_SPAN_SIZE,
            min_layer_size: DEFAULT_MIN_LAYER_SIZE,
            force: false,
            optimize_xattrs: false,
            prefetch_files: Vec::new(),
            recording: None,
            tool: ztoc::DEFAULT_BUILD_TOOL.to_owned(),
            parallel_layers: cores.min(MAX_PARALLEL_LAYERS),
            memory: DEFAULT_MEMORY,
        }
    }
}

/// What the store is to know about a zTOC.
pub(super) fn layer_record(options: &BuildOptions, digest: Digest, size: u64, oci_digest: Digest) -> Record {
    Record {
        digest,
        kind: ArtifactKind::Layer,
        size,
        span_size: options.span_size,
        oci_digest,
        image_digest: None,
        image_ref: String::new(),
        platform: String::new(),
        media_type: ZtocKind::Common.media_type().to_owned(),
        artifact_type: String::new(),
        tool: options.tool.clone(),
        created_at: 0,
        created_at_ns: 0,
        found: false,
    }
}

impl Record {
    /// Sets the time of creation to now.
    pub fn stamp(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.created_at = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.created_at_ns = now.subsec_nanos();
    }
}
