//! Attributes as FUSE wants them.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};

use crate::content::tree::InodeKind;
use crate::fronts::forest::{Attributes, kernel_device};

fn time(attributes: &Attributes) -> SystemTime {
    let (seconds, nanos) = (attributes.mtime.seconds, u64::from(attributes.mtime.nanos));
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(nanos))).unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    let mtime = time(attributes);
    FileAttr {
        ino: INodeNo(attributes.number),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: kernel_device(attributes.device),
        blksize: 4096,
        flags: 0,
    }
}

pub(super) fn file_type(kind: InodeKind) -> FileType {
    match kind {
        InodeKind::Directory => FileType::Directory,
        InodeKind::Regular => FileType::RegularFile,
        InodeKind::Symlink => FileType::Symlink,
        InodeKind::Char => FileType::CharDevice,
        InodeKind::Block => FileType::BlockDevice,
        InodeKind::Fifo => FileType::NamedPipe,
    }
}

/// Attributes of `.` and `..`.
pub(super) fn dot(number: INodeNo) -> FileAttr {
    FileAttr { ino: number, kind: FileType::Directory, ..absent() }
}

/// Attributes of what is not there.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
