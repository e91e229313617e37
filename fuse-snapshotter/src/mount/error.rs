//! Why an image cannot be mounted.

use std::path::{Path, PathBuf};

use registry::Digest;

use crate::content::cache::CacheError;
use crate::image::{CopyError, UnpackFailure, WhyNotLazy};

/// Why an image cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountImageError {
    /// The image or its index cannot be read.
    #[error(transparent)]
    Source(#[from] soci_index::source::SourceError),
    /// The index that was asked for.
    #[error(transparent)]
    Index(#[from] soci_index::discover::DiscoverError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// FUSE.
    #[error(transparent)]
    Fuse(#[from] crate::fronts::fuse::MountError),
    /// EROFS, if nothing else will do.
    #[error("cannot mount by EROFS (--front auto or fuse can)")]
    Erofs(#[from] crate::fronts::erofs::ErofsError),
    /// A layer that can neither be read lazily nor unpacked.
    #[error("cannot unpack layer {digest}: {reason}")]
    Unpack {
        /// Digest of the layer.
        digest: Digest,
        /// What went wrong.
        reason: Box<WhyNotUnpacked>,
    },
    /// A system call.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Why a layer can neither be read lazily nor unpacked.
#[derive(Debug, thiserror::Error)]
pub enum WhyNotUnpacked {
    /// It cannot be unpacked.
    #[error(transparent)]
    Failure(#[from] UnpackFailure),
    /// It cannot be served from a copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// It is a copy that makes no sense above the layers below it.
    #[error(transparent)]
    NotLazy(#[from] WhyNotLazy),
}

pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> MountImageError {
    let path = path.to_owned();
    move |source| MountImageError::Io { operation, path, source }
}
