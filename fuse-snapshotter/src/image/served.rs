//! How a layer is served, and why it is not read lazily.

use std::sync::Arc;

use soci_index::discover::DiscoverError;

use super::assemble::OpenError;
use super::index::NoIndex;
use crate::base::text::Size;
use crate::content::tree::TreeError;

/// How a layer is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Served {
    /// Read from the registry as needed.
    Lazy,
    /// Fetched beforehand, and shown through a tree from the copy: a mount does so with a layer that cannot be
    /// unpacked.
    Copied,
    /// Fetched and unpacked by this program.
    Unpacked,
    /// Fetched and unpacked by containerd.
    Deferred,
}

/// Why a layer is not read lazily.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WhyNotLazy {
    /// All layers are unpacked.
    #[error("pull_modes.parallel_pull_unpack is on")]
    ParallelPull,
    /// Its image has no index.
    #[error("there is no SOCI index for this image")]
    NoIndex,
    /// Whether its image has an index is not known.
    #[error(transparent)]
    IndexSearch(Arc<DiscoverError>),
    /// The index has no zTOC for it.
    #[error("no ztoc for layer")]
    NoZtoc,
    /// It is small.
    #[error("its {size} bytes are fewer than snapshotter.min_layer_size, {limit}")]
    Small {
        /// Its size in bytes.
        size: u64,
        /// The size in bytes from which on layers are read lazily.
        limit: u64,
    },
    /// Its zTOC is so large that the whole layer is fetched sooner.
    #[error(
        "its zTOC of {} is more than {percent} % (snapshotter.max_ztoc_percent) of its {}",
        Size(*ztoc),
        Size(*size)
    )]
    LargeZtoc {
        /// Size of the zTOC in bytes.
        ztoc: u64,
        /// Size of the layer in bytes.
        size: u64,
        /// The largest part that is allowed.
        percent: u64,
    },
    /// Nothing can be read lazily on this machine, as whoever serves trees says.
    #[error("{obstacle}")]
    Machine {
        /// What is in the way.
        obstacle: String,
    },
    /// It took too long to make it ready.
    #[error("timeout waiting for layer to resolve")]
    Timeout,
    /// It cannot be opened.
    #[error(transparent)]
    Open(Arc<OpenError>),
    /// Its zTOC makes no sense by itself, or above the layers below it.
    #[error(transparent)]
    Tree(Arc<TreeError>),
    /// It cannot be shown with the layers below it.
    #[error(transparent)]
    Unmountable(Arc<dyn std::error::Error + Send + Sync>),
    /// A task that made it ready ended early.
    #[error(transparent)]
    Task(Arc<tokio::task::JoinError>),
}

impl WhyNotLazy {
    /// What serves the kernel cannot show it with the layers below it.
    pub fn unmountable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unmountable(Arc::new(error))
    }

    /// The reason in a word: a label of the metrics.
    #[must_use]
    pub fn metric(&self) -> &'static str {
        match self {
            Self::ParallelPull => "parallel_pull",
            Self::NoIndex | Self::IndexSearch(_) => "no_index",
            Self::NoZtoc => "no_ztoc",
            Self::Small { .. } => "small",
            Self::LargeZtoc { .. } => "large_ztoc",
            Self::Machine { .. }
            | Self::Timeout
            | Self::Open(_)
            | Self::Tree(_)
            | Self::Unmountable(_)
            | Self::Task(_) => "failed",
        }
    }

    /// Whether lazy reading was tried, and failed.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.metric() == "failed"
    }
}

impl From<NoIndex> for WhyNotLazy {
    fn from(why: NoIndex) -> Self {
        match why {
            NoIndex::Unknown => Self::NoIndex,
            NoIndex::Search(error) => Self::IndexSearch(Arc::new(error)),
        }
    }
}

impl From<OpenError> for WhyNotLazy {
    fn from(error: OpenError) -> Self {
        Self::Open(Arc::new(error))
    }
}

impl From<TreeError> for WhyNotLazy {
    fn from(error: TreeError) -> Self {
        Self::Tree(Arc::new(error))
    }
}

impl From<tokio::task::JoinError> for WhyNotLazy {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Task(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts and labels that users and dashboards know.
    #[test]
    fn reasons_have_texts_and_labels() {
        let large = WhyNotLazy::LargeZtoc { ztoc: 6 << 20, size: 2 << 20, percent: 200 };
        let small = WhyNotLazy::Small { size: 3, limit: 10 };
        for (why, label, text) in [
            (WhyNotLazy::ParallelPull, "parallel_pull", "pull_modes.parallel_pull_unpack is on"),
            (WhyNotLazy::NoIndex, "no_index", "there is no SOCI index for this image"),
            (WhyNotLazy::NoZtoc, "no_ztoc", "no ztoc for layer"),
            (small, "small", "its 3 bytes are fewer than snapshotter.min_layer_size, 10"),
            (
                large,
                "large_ztoc",
                "its zTOC of 6291 kB is more than 200 % (snapshotter.max_ztoc_percent) of its 2097 kB",
            ),
            (WhyNotLazy::Timeout, "failed", "timeout waiting for layer to resolve"),
        ] {
            assert_eq!((why.metric(), why.to_string().as_str()), (label, text));
            assert_eq!(why.is_failure(), label == "failed");
        }
    }
}
