//! What a stack of layers looks like when merged: an oracle for tests.
//!
//! It is slow, simple, and shares no code with the product. The rules, where the OCI specification leaves room:
//!
//! - Whiteouts and opaque markers act on the layers below, never on their own layer, wherever in the tar they stand:
//!   `.wh.X` beside `X` hides the `X` below only. A character device 0:0 is a whiteout of its own path. Other names
//!   that begin with `.wh..wh.` are AUFS's bookkeeping and mean nothing, and so do `.wh.`, `.wh..` and `.wh...`.
//! - A directory over a directory keeps the children below and has its own attributes. Anything else over anything
//!   replaces it with all that was under it; so does a directory over a whiteout of its own layer.
//! - A parent that a layer implies without an entry (also the parent of a whiteout) has the attributes of the directory
//!   that is visible below, once the layer's own whiteouts have acted; without one it is 0755, 0:0, at the epoch.
//! - Within a layer a later entry replaces an earlier one of the same path; a directory again only changes attributes.
//!   What replaces a directory takes away all that stood in it, whiteouts and opaque markers included.
//! - A hard link has everything from its target, which is looked for in the layer itself, then in the merged tree
//!   below; its own header's attributes do not count. Without a target there is no entry.
//! - Names are taken as paths below the root: `./a//b/../c` is `a/c`, `..` at the root stays there. Symbolic links are
//!   not followed in names: `l/x` makes a directory of a link `l`.
//! - What an entry's fields say counts; records in [`Entry::pax`](crate::image::Entry::pax) do not change them, except
//!   that `SCHILY.xattr.` records are extended attributes.
//! - `trusted.overlay.*` and `user.overlay.*` are not extended attributes of the tree.

mod merge;
mod tree;

#[cfg(test)]
mod tests;

pub use self::merge::{merge, merge_entries};
pub use self::tree::{Node, NodeType, Tree};
