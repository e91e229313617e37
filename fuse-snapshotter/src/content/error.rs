//! Why bytes of a layer cannot be had.

use std::sync::Arc;

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
