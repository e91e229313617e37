//! The immutable directory tree of an image, merged from the zTOCs of its layers.
//!
//! [`Tree::merge`] applies layers bottom to top, in two steps a layer: `draft` turns a zTOC into the layer's
//! own tree (names cleaned, missing parents added, hard links joined, whiteouts set apart), and `merge` lays
//! that over what is below. The result is frozen into flat tables ([`Tree`]): inodes, and per directory a
//! run of names sorted bytewise, so that a look-up is a binary search and a listing is a slice.
//!
//! Inodes are named deterministically ([`InodeId`]): what has a zTOC entry by its layer and entry, directories by
//! their place in this tree. The fronts make inode numbers of that.

mod build;
mod check;
mod draft;
mod error;
mod freeze;
mod inode;
mod merge;
mod overlay;
mod path;
mod tables;

#[cfg(test)]
pub(crate) mod tests;

pub use check::Needs;
pub use error::TreeError;
pub use inode::{DirectoryAttributes, FileId, Inode, InodeId, InodeIndex, InodeKind};
pub use overlay::{Below, OverlayNamespace};
pub use tables::Tree;
