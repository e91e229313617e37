//! Inodes of a tree: what names them, and their attributes.

use std::ops::Range;

use ztoc::{EntryKind, Timestamp};

/// In place of a layer: named by the tree. No layer has this index, see [`Tree::merge`](super::Tree::merge).
pub(super) const OWN: u16 = u16::MAX;

/// The zTOC entry of anything but a directory; for a regular file that is where its content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Index of the layer, bottom first.
    pub layer: u16,
    /// Index of the zTOC entry.
    pub entry: u32,
}

/// What names an inode within its tree, the same whenever the tree is merged from the same layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InodeId {
    /// A directory or a whiteout, numbered within this tree; the root is 0.
    Own(u32),
    /// Anything else.
    File(FileId),
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InodeKind {
    /// A directory; its names are [`Tree::children`](super::Tree::children).
    Directory,
    /// A regular file with content.
    Regular,
    /// A symbolic link; see [`Tree::link_target`](super::Tree::link_target).
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// Attributes of a directory that come from outside the tree; see [`Tree::describe`](super::Tree::describe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryAttributes {
    /// Permission bits with setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Index of an inode within its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeIndex(pub(super) u32);

impl InodeIndex {
    /// Its position among [`Tree::inodes`](super::Tree::inodes).
    #[must_use]
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// Attributes of a file or directory.
#[derive(Debug, Clone)]
pub struct Inode {
    /// What it is.
    pub kind: InodeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes; of a symbolic link the length of its target.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Names of a file; 2 and one for each sub-directory of a directory.
    pub links: u32,
    /// Device numbers, major and minor.
    pub device: (u32, u32),
    /// The layer of [`FileId`], or [`OWN`].
    pub(super) layer: u16,
    /// The entry of [`FileId`], or the number among the tree's own.
    pub(super) entry: u32,
    /// Directories: range in `dirents`. Links: range in `text`.
    pub(super) span: Range<u32>,
    /// Range in `xattrs`.
    pub(super) xattrs: Range<u32>,
}

impl Inode {
    /// What names it.
    #[must_use]
    pub fn id(&self) -> InodeId {
        match self.layer {
            OWN => InodeId::Own(self.entry),
            layer => InodeId::File(FileId { layer, entry: self.entry }),
        }
    }
}

/// What an entry of this kind is; a hard link is no inode of its own.
pub(super) fn kind_of(kind: EntryKind) -> Option<InodeKind> {
    Some(match kind {
        EntryKind::Directory => InodeKind::Directory,
        EntryKind::Regular => InodeKind::Regular,
        EntryKind::Symlink => InodeKind::Symlink,
        EntryKind::Char => InodeKind::Char,
        EntryKind::Block => InodeKind::Block,
        EntryKind::Fifo => InodeKind::Fifo,
        EntryKind::Hardlink => return None,
    })
}
