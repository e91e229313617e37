//! Filling the cache from the registry, span by span, as reads ask for it.
//!
//! [`LazyLayer::try_read`] serves what the cache has, without waiting. What is missing is fetched by
//! [`LazyLayer::fill`]: the spans that hold the wanted blocks, each by one flight at a time however many readers
//! want it, neighbouring ones in one request. A span is hashed and inflated while it arrives (`span`), the tar
//! headers in it are checked against the zTOC (`headers`), and it is published once its digest matches. Readers
//! of the first span of a request do not wait for the last one.
//!
//! When the layer is gone from all repositories, another image's layer with the same content may stand in (`twin`).
//!
//! A span that fails its digest again and again, and a registry that does not do ranges, lead to
//! the whole layer being fetched and verified by its own digest (`whole`), and served from the local copy.

pub mod cache;
mod layer;
mod link;
mod policy;
mod spans;
pub mod tree;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use layer::{FetchContext, LayerStats, LazyLayer};
pub use link::schedule::Pulling;
pub use spans::table::{LayerTable, TableError};
pub(crate) use spans::twin::Twin;

/// Why bytes cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The registry, or the way there.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// What arrived is not what the zTOC says, even after retries.
    #[error("span {span} of layer {layer} is corrupt: {reason}")]
    Corrupt {
        /// Digest of the layer.
        layer: String,
        /// Index of the span.
        span: usize,
        /// What is wrong.
        reason: String,
    },
    /// The zTOC contradicts the verified layer, or the tar headers in it.
    #[error("the zTOC of layer {layer} is false: {reason}")]
    False {
        /// Digest of the layer.
        layer: String,
        /// Where it contradicts the layer.
        reason: String,
    },
    /// The cache's disk.
    #[error("cannot use the cache: {0}")]
    Cache(#[source] Arc<std::io::Error>),
    /// The fetch was given up because something more urgent came; ask again.
    #[error("the fetch was cancelled")]
    Cancelled,
}

impl FetchError {
    /// What is to blame, as the metrics name it; none if the fetch was given up.
    #[must_use]
    pub fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Registry(_) => Some("registry"),
            Self::Corrupt { .. } => Some("corrupt"),
            Self::False { .. } => Some("false_ztoc"),
            Self::Cache(_) => Some("cache"),
            Self::Cancelled => None,
        }
    }
}

impl From<std::io::Error> for FetchError {
    fn from(error: std::io::Error) -> Self {
        Self::Cache(Arc::new(error))
    }
}
