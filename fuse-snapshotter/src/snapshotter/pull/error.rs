//! What can go wrong with a pull, and why layers are then left to containerd.

use std::sync::Arc;

use registry::Digest;
use soci_index::oci::DocumentError;
use soci_index::source::SourceError;
use tokio::task::JoinError;

use super::request::RequestError;
use crate::content::tree::TreeError;
use crate::image::{OpenError, UnpackFailure, WhyNotLazy};
use crate::snapshotter::error::SnapshotError;

/// Why the manifest or the configuration of an image is not known.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// It cannot be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is not what it should be.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It took too long.
    #[error("timeout looking for the SOCI index")]
    Timeout,
    /// The task that looked ended early.
    #[error(transparent)]
    Task(#[from] JoinError),
}

/// Why it is not known where in its image a layer is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WhyUnplaced {
    /// The client does not name the image.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The image is not known.
    #[error(transparent)]
    Facts(#[from] Arc<FactsError>),
    /// The image has no such layer.
    #[error("{chain_id} is no chain ID of the image")]
    NotThere {
        /// What the layer was asked for by.
        chain_id: String,
    },
}

/// Why a layer cannot be fetched and unpacked by us.
#[derive(Debug, thiserror::Error)]
pub enum UnpackLayerError {
    /// Nobody wants the image any more.
    #[error("the pull was given up")]
    GivenUp,
    /// The image's configuration, which has the layer's digest, is not known.
    #[error(transparent)]
    Config(#[from] Arc<FactsError>),
    /// The image's configuration has fewer layers than its manifest.
    #[error("the image's configuration does not list the layer")]
    NotListed,
    /// There is nowhere to unpack it.
    #[error("cannot make a directory: {0}")]
    Directory(std::io::Error),
    /// It was tried, and failed.
    #[error(transparent)]
    Failure(#[from] UnpackFailure),
}

/// Why a layer cannot be committed over the snapshots that are there.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// These are not known.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// One of them cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// They make no sense together.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The task that tried it ended early.
    #[error(transparent)]
    Task(#[from] JoinError),
}

/// Why containerd is to fetch and unpack a layer itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WhyDeferred {
    /// The image is not known.
    #[error(transparent)]
    Facts(#[from] Arc<FactsError>),
    /// The image has no index, and layers of such images are containerd's.
    #[error(transparent)]
    NoIndex(WhyNotLazy),
    /// It is not known what is below the layer.
    #[error(transparent)]
    Unplaced(#[from] WhyUnplaced),
    /// containerd has not said what is below the layer.
    #[error(
        "containerd unpacks in parallel, and prepares layers without those below them: take \"rebase\" out of the \
         snapshotter's capabilities in containerd's configuration"
    )]
    WithoutParent,
    /// The image has no such layer.
    #[error("the image has no layer {0}")]
    NoLayer(Digest),
    /// Nobody wanted the image any more.
    #[error("the pull was given up")]
    GivenUp,
    /// It can neither be read lazily nor unpacked.
    #[error("{why}; cannot unpack: {error}")]
    CannotUnpack {
        /// Why it is not read lazily.
        why: WhyNotLazy,
        /// Why it was not unpacked.
        error: Arc<UnpackLayerError>,
    },
    /// What was unpacked cannot be made a snapshot.
    #[error("{why}; cannot use what was unpacked: {error}")]
    CannotUse {
        /// Why it is not read lazily.
        why: WhyNotLazy,
        /// Why what was unpacked is of no use.
        error: Arc<SnapshotError>,
    },
    /// It is lazy, but cannot be served over the snapshots that are there.
    #[error(transparent)]
    DoesNotFit(Arc<FitError>),
    /// The task that made it ready ended early.
    #[error(transparent)]
    Task(Arc<JoinError>),
}

impl WhyDeferred {
    /// Whether the image has an index, as far as is known.
    #[must_use]
    pub fn has_index(&self) -> bool {
        !matches!(self, Self::Facts(_) | Self::NoIndex(_) | Self::Unplaced(_))
    }
}
