//! Why an index cannot be built.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use registry::{Descriptor, Digest};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use ztoc::Ztoc;

use super::budget::MemoryBudget;
use super::file::{FileError, build_file, store_ztoc};
use super::prefetch::MAX_PREFETCH_FILES;
use super::progress::{LayerEvent, Progress, Silent, Skipped};
use super::recorded::{RecordedError, create_recorded};
use crate::image::{self, PlatformChoice, PlatformImage};
use crate::manifest::{IndexManifest, IndexVersion, MAX_ZTOC_SIZE, PREFETCH, ZtocKind};
use crate::oci::IMAGE_MANIFEST;
use crate::platform::Platform;
use crate::recording::Recording;
use crate::source::{ImageSource, SourceError};
use crate::store::{ArtifactKind, Record, Store, StoreError};
use super::layer::{BuildLayerError, Format, Outcome};
use super::options::{BuildOptions, DEFAULT_MEMORY, DEFAULT_MIN_LAYER_SIZE};
use super::options::{layer_record};

/// Why no index was built.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The image could not be read, or is corrupt.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An option is out of range.
    #[error("{0}")]
    Options(String),
    /// The image manifest lists something that is no layer.
    #[error("{digest}: not a layer mediaType: {media_type}; only container images can be indexed")]
    NotALayer {
        /// The descriptor's digest.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// Every layer was skipped or failed.
    #[error("no ztocs created, all layers either skipped or produced errors")]
    Empty,
    /// Something failed that should not.
    #[error("internal error: {0}")]
    Internal(String),
}
