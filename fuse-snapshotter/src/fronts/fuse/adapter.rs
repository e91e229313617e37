//! The requests of the kernel, answered by a [`Forest`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};
use tokio::runtime::Handle;

use super::attr::{absent, dot, file_attr, file_type};
use super::negotiated::Negotiated;
use super::pages::Pages;
use crate::content::tree::InodeKind;
use crate::fronts::errno::errno;
use crate::fronts::forest::{Forest, FsError, Operation};
use crate::fronts::reads::{answer_later, answer_now};
use crate::fronts::stats::FuseStats;

/// How long the kernel may believe what it was told: a tree never changes.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// The same for what does change.
const VOLATILE: Duration = Duration::ZERO;

/// [`Forest`] as a [`Filesystem`].
pub(super) struct Adapter {
    pub(super) forest: Arc<Forest>,
    pub(super) runtime: Handle,
    pub(super) stats: Arc<FuseStats>,
    pub(super) pages: Pages,
    pub(super) negotiated: Negotiated,
}

impl Adapter {
    fn count(&self) {
        self.stats.count_request();
    }

    fn failed(&self, number: INodeNo, operation: Operation, error: &FsError) -> Errno {
        failed(&self.forest, &self.stats, number, operation, error)
    }

    /// How long the kernel may believe what it is told of an inode, or of the names in it.
    fn validity(&self, number: u64) -> &'static Duration {
        if self.forest.is_volatile(number) { &VOLATILE } else { &VALID }
    }
}

/// The errno for an error about an inode, which is counted.
fn failed(fs: &Forest, stats: &FuseStats, number: INodeNo, operation: Operation, error: &FsError) -> Errno {
    if error.is_failure() {
        stats.failures().add(operation);
        fs.count_failure(number.0, operation, error);
    }
    errno(error)
}

/// Where a listing goes on: the kernel gives back the offset of the entry it saw last. 1 is `.`, 2 is `..`.
fn listing_start(offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX)
}

impl Filesystem for Adapter {
    fn forget(&self, _request: &Request, number: INodeNo, _lookups: u64) {
        self.forest.forget(number.0);
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.count();
        let valid = self.validity(parent.0);
        match self.forest.lookup(parent.0, name.as_bytes()) {
            Ok(attributes) => {
                let pages = self.forest.tell_lookup(attributes.number, request.pid());
                let attr = file_attr(&attributes);
                if pages.is_empty() {
                    return reply.entry(valid, &attr, Generation(0));
                }
                let (dropping, fs, runtime) =
                    (self.pages.clone(), Arc::clone(&self.forest), self.runtime.clone());
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
        match self.forest.getattr(number.0) {
            Ok(attributes) => reply.attr(self.validity(number.0), &file_attr(&attributes)),
            Err(error) => reply.error(self.failed(number, Operation::Getattr, &error)),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        self.count();
        match self.forest.readlink(number.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(self.failed(number, Operation::Readlink, &error)),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count();
        if let Err(error) = self.forest.open(number.0) {
            reply.error(self.failed(number, Operation::Open, &error));
        } else if self.negotiated.no_open {
            // From now on the kernel opens files by itself, and keeps their pages.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count();
        if self.negotiated.no_opendir {
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
        let (length, process) = (size as usize, request.pid());
        let missing = answer_now(
            reply,
            |buffer| {
                let missing = self.forest.read_cached(number.0, offset, length, buffer)?;
                self.forest.tell_read(number.0, offset, length, missing.is_some(), process);
                Ok(missing)
            },
            |bytes| self.forest.was_read(number.0, offset, bytes),
            |error| self.failed(number, Operation::Read, error),
        );
        let Some((missing, reply)) = missing else { return };
        let content = async move {
            let mut buffer = Vec::new();
            missing.read(&mut buffer).await?;
            Ok(buffer)
        };
        let forest = Arc::clone(&self.forest);
        let answered = move |bytes: &[u8]| forest.was_read(number.0, offset, bytes);
        let (forest, stats) = (Arc::clone(&self.forest), Arc::clone(&self.stats));
        let failed = move |error: &FsError| failed(&forest, &stats, number, Operation::Read, error);
        answer_later(&self.runtime, &self.stats, reply, content, answered, failed);
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
        let listed = self.forest.list(number.0, listing_start(offset), |name, attributes| {
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
        let is_watched = self.forest.is_watched(request.pid());
        let listed = self.forest.list(number.0, listing_start(offset), |name, attributes| {
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
        let stats = self.forest.statfs(number.0);
        reply.statfs(stats.blocks, 0, 0, stats.files, 0, stats.block_size, 255, stats.block_size);
    }

    fn getxattr(&self, _request: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.count();
        if !self.forest.serves_xattrs() {
            // The kernel asks once and never again: this is a round trip saved for every file.
            return reply.error(Errno::ENOSYS);
        }
        match self.forest.getxattr(number.0, name.as_bytes()) {
            Ok(value) => reply_sized(&value, size, reply),
            Err(error) => reply.error(self.failed(number, Operation::Getxattr, &error)),
        }
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.count();
        if !self.forest.serves_xattrs() {
            return reply.error(Errno::ENOSYS);
        }
        match self.forest.listxattr(number.0) {
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
