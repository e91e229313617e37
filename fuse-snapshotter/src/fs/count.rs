//! Counts of what was asked.

use std::sync::atomic::{AtomicU64, Ordering};

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

    /// Name in the metric `soci_fs_image_operation_count_key`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Getattr => "node.Getattr",
            Self::Getxattr => "node.Getxattr",
            Self::Listxattr => "node.Listxattr",
            Self::Lookup => "node.Lookup",
            Self::Open => "node.Open",
            Self::Readdir => "node.Readdir",
            Self::Readlink => "node.Readlink",
            Self::Read => "file.Read",
        }
    }

    /// Name of its failures in the metric `soci_fs_operation_count`.
    #[must_use]
    pub fn failure_key(self) -> &'static str {
        match self {
            Self::Getattr => "fuse_node_getattr_failure_count",
            Self::Getxattr => "fuse_node_getxattr_failure_count",
            Self::Listxattr => "fuse_node_listxattr_failure_count",
            Self::Lookup => "fuse_node_lookup_failure_count",
            Self::Open => "fuse_node_open_failure_count",
            Self::Readdir => "fuse_node_readdir_failure_count",
            Self::Readlink => "fuse_node_readlink_failure_count",
            Self::Read => "fuse_file_read_failure_count",
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
