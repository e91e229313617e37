//! Counts of the kernel's requests, by operation.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::metrics::{Count, ImageOperation};

/// What the kernel can ask about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Attributes.
    Getattr,
    /// An extended attribute.
    Getxattr,
    /// The names of the extended attributes.
    Listxattr,
    /// A name in a directory.
    Lookup,
    /// Opening a file; most kernels ask this once and never again.
    Open,
    /// Names in a directory.
    Readdir,
    /// The target of a symbolic link.
    Readlink,
    /// Content.
    Read,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Getattr,
        Self::Getxattr,
        Self::Listxattr,
        Self::Lookup,
        Self::Open,
        Self::Readdir,
        Self::Readlink,
        Self::Read,
    ];

    /// What it is counted as in the metrics of an image.
    #[must_use]
    pub fn metric(self) -> ImageOperation {
        match self {
            Self::Getattr => ImageOperation::NodeGetattr,
            Self::Getxattr => ImageOperation::NodeGetxattr,
            Self::Listxattr => ImageOperation::NodeListxattr,
            Self::Lookup => ImageOperation::NodeLookup,
            Self::Open => ImageOperation::NodeOpen,
            Self::Readdir => ImageOperation::NodeReaddir,
            Self::Readlink => ImageOperation::NodeReadlink,
            Self::Read => ImageOperation::FileRead,
        }
    }

    /// What its failures are counted as in the metrics of a layer.
    #[must_use]
    pub fn failure_metric(self) -> Count {
        match self {
            Self::Getattr => Count::NodeGetattrFailure,
            Self::Listxattr => Count::NodeListxattrFailure,
            Self::Lookup => Count::NodeLookupFailure,
            Self::Open => Count::NodeOpenFailure,
            Self::Readdir => Count::NodeReaddirFailure,
            Self::Read => Count::FileReadFailure,
            Self::Getxattr | Self::Readlink => Count::UnknownOperationFailure,
        }
    }
}

/// A count for each [`Operation`].
#[derive(Debug, Default)]
pub struct OperationCounts([AtomicU64; Operation::ALL.len()]);

impl OperationCounts {
    pub(crate) fn add(&self, operation: Operation) {
        self.0[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often this was asked.
    pub fn get(&self, operation: Operation) -> u64 {
        self.0[operation as usize].load(Ordering::Relaxed)
    }
}
