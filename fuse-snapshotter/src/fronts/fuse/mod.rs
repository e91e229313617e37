//! The kernel's side: a thin adapter from FUSE requests to [`Forest`].
//!
//! A tree never changes, so the kernel may keep what it learns for as long as it likes, and is told so:
//! entries and attributes are valid for a day, symbolic links and directories are cached, files keep their pages,
//! and open and opendir are answered once with "not needed". Only which trees there are, and the state files, change.
//! No FUSE thread ever waits for the network: a read that misses the cache is finished by the async runtime.

mod errno;
mod mount;
mod options;
mod pages;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use tokio::runtime::Handle;

pub(crate) use errno::errno;
pub use mount::{FuseMount, MountError};
pub(crate) use mount::{detach, is_mounted};
pub(crate) use options::MAX_BACKGROUND;
pub use options::{FuseOptions, Negotiated};
use pages::Pages;

use crate::content::tree::InodeKind;
use crate::fronts::forest::{Attributes, Forest, FsError, Operation, OperationCounts, kernel_device};

/// How long the kernel may believe what it was told: a tree never changes.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// The same for what does change.
const VOLATILE: Duration = Duration::ZERO;

/// Longest read the kernel is told to ask for, in bytes. It asks for read-ahead (128 KiB) at most anyway.
pub(crate) const MAX_READ: u32 = 1 << 20;

thread_local! {
    /// Each FUSE thread reads into a buffer of its own.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Counts of what the kernel asked.
#[derive(Debug, Default)]
pub struct FuseStats {
    requests: AtomicU64,
    reads: AtomicU64,
    misses: AtomicU64,
    failures: OperationCounts,
}

impl FuseStats {
    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A read, which is a request, too.
    pub(crate) fn count_read(&self) {
        self.count_request();
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of every kind.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Read requests.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Read requests that had to wait for the network.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Requests that failed though the question was right, by operation.
    pub fn failures(&self) -> &OperationCounts {
        &self.failures
    }
}

/// [`Forest`] as a [`Filesystem`].
pub(crate) struct Adapter {
    fs: Arc<Forest>,
    runtime: Handle,
    stats: Arc<FuseStats>,
    /// Whether mounts of it may be id-mapped, if the kernel can do that.
    allow_idmap: bool,
    pages: Pages,
    /// Set when the kernel has said what it can do, before any other request.
    negotiated: Arc<OnceLock<Negotiated>>,
}

impl Adapter {
    fn count(&self) {
        self.stats.count_request();
    }

    fn failed(&self, number: INodeNo, operation: Operation, error: &FsError) -> Errno {
        failed(&self.fs, &self.stats, number, operation, error)
    }

    fn negotiated(&self, says: impl FnOnce(&Negotiated) -> bool) -> bool {
        self.negotiated.get().is_some_and(says)
    }

    /// How long the kernel may believe what it is told of an inode, or of the names in it.
    fn validity(&self, number: u64) -> &'static Duration {
        if self.fs.is_volatile(number) { &VOLATILE } else { &VALID }
    }
}

/// The errno for an error about an inode, which is counted.
fn failed(fs: &Forest, stats: &FuseStats, number: INodeNo, operation: Operation, error: &FsError) -> Errno {
    if error.is_failure() {
        stats.failures.add(operation);
        fs.count_failure(number.0, operation, error);
    }
    errno(error)
}

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

fn file_attr(attributes: &Attributes) -> FileAttr {
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

fn file_type(kind: InodeKind) -> FileType {
    match kind {
        InodeKind::Directory => FileType::Directory,
        InodeKind::Regular => FileType::RegularFile,
        InodeKind::Symlink => FileType::Symlink,
        InodeKind::Char => FileType::CharDevice,
        InodeKind::Block => FileType::BlockDevice,
        InodeKind::Fifo => FileType::NamedPipe,
    }
}

/// Where a listing goes on: the kernel gives back the offset of the entry it saw last. 1 is `.`, 2 is `..`.
fn listing_start(offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX)
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // The kernel asks once in the life of a connection.
        let _ = self.negotiated.set(options::negotiate(config, self.allow_idmap));
        Ok(())
    }

    fn forget(&self, _request: &Request, number: INodeNo, _lookups: u64) {
        self.fs.forget(number.0);
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.count();
        let valid = self.validity(parent.0);
        match self.fs.lookup(parent.0, name.as_bytes()) {
            Ok(attributes) => {
                let pages = self.fs.tell_lookup(attributes.number, request.pid());
                let attr = file_attr(&attributes);
                if pages.is_empty() {
                    return reply.entry(valid, &attr, Generation(0));
                }
                let (dropping, fs, runtime) =
                    (self.pages.clone(), Arc::clone(&self.fs), self.runtime.clone());
                self.runtime.spawn(async move {
                    if !dropping.drop_of(attributes.number, pages, &runtime).await {
                        fs.tell_missed();
                    }
                    reply.entry(valid, &attr, Generation(0));
                });
            }
            // An entry with inode 0 says that there is none, and for how long that holds.
            Err(FsError::NotFound) => reply.entry(valid, &absent(), Generation(0)),
            Err(error) => reply.error(self.failed(parent, Operation::Lookup, &error)),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.count();
        match self.fs.getattr(number.0) {
            Ok(attributes) => reply.attr(self.validity(number.0), &file_attr(&attributes)),
            Err(error) => reply.error(self.failed(number, Operation::Getattr, &error)),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        self.count();
        match self.fs.readlink(number.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(self.failed(number, Operation::Readlink, &error)),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count();
        if let Err(error) = self.fs.open(number.0) {
            reply.error(self.failed(number, Operation::Open, &error));
        } else if self.negotiated(|with| with.no_open) {
            // From now on the kernel opens files by itself, and keeps their pages.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count();
        if self.negotiated(|with| with.no_opendir) {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.stats.count_read();
        let missing = BUFFER.with_borrow_mut(|buffer| {
            match self.fs.read_cached(number.0, offset, size as usize, buffer) {
                Ok(None) => {
                    self.fs.tell_read(number.0, offset, size as usize, false, request.pid());
                    reply.data(buffer);
                    self.fs.was_read(number.0, offset, buffer);
                    None
                }
                Ok(Some(missing)) => {
                    self.fs.tell_read(number.0, offset, size as usize, true, request.pid());
                    Some((missing, reply))
                }
                Err(error) => {
                    reply.error(self.failed(number, Operation::Read, &error));
                    None
                }
            }
        });
        if let Some((missing, reply)) = missing {
            self.stats.count_miss();
            let (fs, stats) = (Arc::clone(&self.fs), Arc::clone(&self.stats));
            self.runtime.spawn(async move {
                let mut buffer = Vec::new();
                match missing.read(&mut buffer).await {
                    Ok(()) => {
                        reply.data(&buffer);
                        fs.was_read(number.0, offset, &buffer);
                    }
                    Err(error) => reply.error(failed(&fs, &stats, number, Operation::Read, &error)),
                }
            });
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: fuser::ReplyEmpty) {
        // Nothing is ever written: the kernel need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        // Programs ask every file whether it is a terminal.
        self.count();
        reply.error(Errno::ENOTTY);
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.count();
        let dots = [(1, "."), (2, "..")].into_iter().filter(|(position, _)| *position > offset);
        for (position, name) in dots {
            if reply.add(number, position, FileType::Directory, name) {
                return reply.ok();
            }
        }
        let mut position = offset.max(2);
        let listed = self.fs.list(number.0, listing_start(offset), |name, attributes| {
            position += 1;
            let kind = file_type(attributes.kind);
            reply.add(INodeNo(attributes.number), position, kind, OsStr::from_bytes(name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed(number, Operation::Readdir, &error)),
        }
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.count();
        let valid = self.validity(number.0);
        let dots = [(1, "."), (2, "..")].into_iter().filter(|(position, _)| *position > offset);
        for (position, name) in dots {
            // Of these two the kernel takes the name and the type alone.
            if reply.add(number, position, name, valid, &dot(number), Generation(0)) {
                return reply.ok();
            }
        }
        let mut position = offset.max(2);
        let is_watched = self.fs.is_watched(request.pid());
        let listed = self.fs.list(number.0, listing_start(offset), |name, attributes| {
            position += 1;
            let attr = file_attr(attributes);
            // With no number the kernel takes the name alone, and looks the file up when somebody wants it.
            let looked_up = is_watched && attributes.kind == InodeKind::Regular;
            let number = if looked_up { INodeNo(0) } else { attr.ino };
            reply.add(number, position, OsStr::from_bytes(name), valid, &attr, Generation(0))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed(number, Operation::Readdir, &error)),
        }
    }

    fn statfs(&self, _request: &Request, number: INodeNo, reply: ReplyStatfs) {
        self.count();
        let stats = self.fs.statfs(number.0);
        reply.statfs(stats.blocks, 0, 0, stats.files, 0, stats.block_size, 255, stats.block_size);
    }

    fn getxattr(&self, _request: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.count();
        if !self.fs.serves_xattrs() {
            // The kernel asks once and never again: this is a round trip saved for every file.
            return reply.error(Errno::ENOSYS);
        }
        match self.fs.getxattr(number.0, name.as_bytes()) {
            Ok(value) => reply_sized(&value, size, reply),
            Err(error) => reply.error(self.failed(number, Operation::Getxattr, &error)),
        }
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.count();
        if !self.fs.serves_xattrs() {
            return reply.error(Errno::ENOSYS);
        }
        match self.fs.listxattr(number.0) {
            Ok(names) => reply_sized(&names, size, reply),
            Err(error) => reply.error(self.failed(number, Operation::Listxattr, &error)),
        }
    }
}

/// A reply to a caller that asks for the size first (`size` 0) and then for as much.
fn reply_sized(value: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

/// Attributes of `.` and `..`.
fn dot(number: INodeNo) -> FileAttr {
    FileAttr { ino: number, kind: FileType::Directory, ..absent() }
}

/// Attributes of what is not there.
fn absent() -> FileAttr {
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
