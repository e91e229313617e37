//! The file system itself, over plain Rust types, which [`crate::fronts::fuse`] adapts to the kernel.
//!
//! A [`Forest`] holds merged trees: either a single one, whose root is the root of the file system, or many, each a
//! directory in the root. Metadata come from the [trees](crate::content::tree), at once and without I/O. Contents
//! come from the layers' caches. Only [`Forest::read`] and [`Missing::read`] ever wait for the network.
//!
//! A file has the same inode number in every tree that has its layer (see `inode_number`), so that images which
//! share a layer share its pages in the kernel's cache.

mod attr;
mod error;
mod file_system;
mod ids;
mod inode_number;
mod observe;
mod observers;
mod operation_counts;
mod serve;
mod state_files;
mod tree_table;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use attr::kernel_device;
pub use attr::{Attributes, FileSystemStats};
pub use error::FsError;
pub use file_system::Forest;
pub use ids::{IdMaps, IdRange};
pub use inode_number::{LayerSlot, ROOT, TreeSlot};
pub use observers::{AskedFile, Observer};
pub use operation_counts::{Operation, OperationCounts};
pub use serve::Missing;
pub(crate) use serve::read_entry;
pub(crate) use state_files::NAME as STATE_DIRECTORY;
pub use tree_table::AddTreeError;
