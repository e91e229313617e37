//! What stat(2) and statfs(2) say.

use ztoc::Timestamp;

use crate::tree::{Inode, InodeKind};

/// Attributes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number.
    pub number: u64,
    /// What it is.
    pub kind: InodeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Size in units of 512 bytes, as if it were all on a disk of 4 KiB blocks.
    pub blocks: u64,
    /// Modification time; an image has no others.
    pub mtime: Timestamp,
    /// Link count.
    pub links: u32,
    /// Major and minor device number.
    pub device: (u32, u32),
}

impl Attributes {
    pub(super) fn of(inode: &Inode) -> Self {
        Self {
            number: inode.number,
            kind: inode.kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            blocks: inode.size.div_ceil(4096) * 8,
            mtime: inode.mtime,
            links: inode.links,
            device: inode.device,
        }
    }
}

/// Totals of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystemStats {
    /// Size of all files, in blocks.
    pub blocks: u64,
    /// Number of inodes.
    pub files: u64,
    /// Size of a block in bytes.
    pub block_size: u32,
}
