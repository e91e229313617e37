//! The answers of stat(2) and statfs(2).

use ztoc::Timestamp;

use super::ids::IdMaps;
use crate::content::tree::{Inode, InodeKind};

/// Attributes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number.
    pub number: u64,
    /// Kind of file.
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

/// Device numbers as the kernel has them in 32 bits: 12 bits of major, 20 of minor, the low 8 of these at the bottom.
pub(crate) fn kernel_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

fn blocks(size: u64) -> u64 {
    size.div_ceil(4096) * 8
}

impl Attributes {
    pub(super) fn of(inode: &Inode, number: u64) -> Self {
        Self {
            number,
            kind: inode.kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            blocks: blocks(inode.size),
            mtime: inode.mtime,
            links: inode.links,
            device: inode.device,
        }
    }

    /// Attributes of a file or directory that is in no image. It belongs to root.
    pub(super) fn of_our_own(number: u64, kind: InodeKind, mode: u16, size: u64) -> Self {
        Self {
            number,
            kind,
            mode,
            uid: 0,
            gid: 0,
            size,
            blocks: blocks(size),
            mtime: Timestamp { seconds: 0, nanos: 0 },
            links: if kind == InodeKind::Directory { 2 } else { 1 },
            device: (0, 0),
        }
    }

    /// With owners translated, if they are to be.
    pub(super) fn owned_by(mut self, ids: Option<&IdMaps>) -> Self {
        if let Some(ids) = ids {
            self.uid = ids.uid(self.uid);
            self.gid = ids.gid(self.gid);
        }
        self
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
