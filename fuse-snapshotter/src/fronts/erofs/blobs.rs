//! The devices: a FUSE file system with one file for each layer, and one that is the image of the metadata.
//!
//! Only EROFS reads them, and it reads runs of blocks within one file of an image. Other reads are answered too,
//! file by file. The kernel does not cache the answers here: they go into the pages of EROFS.
//!
//! EROFS fills up an answer that is too short with zeros, as at the end of a file. So an answer has all bytes or is
//! an error. Reads must be asynchronous (`FUSE_ASYNC_DIO`): then an error in any of the requests that a read is
//! split into is the error of the whole read, and a process that waits can be killed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};
use tokio::runtime::Handle;

use crate::content::cache::BLOCK_SIZE;
use crate::content::{FetchError, LazyLayer};
use crate::fronts::errno::errno;
use crate::fronts::forest::{FsError, Missing, Operation, ROOT, read_entry};
use crate::fronts::reads::{answer_later, answer_now};
use crate::fronts::session::{MAX_BACKGROUND, MAX_READ};
use crate::fronts::stats::FuseStats;

/// Nothing here ever changes.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// The layers of a tree, bottom first, as files `0`, `1` and so on, and behind them the image.
pub(super) struct Blobs {
    pub(super) layers: Vec<Arc<LazyLayer>>,
    pub(super) image: File,
    /// Size of the image in bytes.
    pub(super) image_size: u64,
    pub(super) runtime: Handle,
    pub(super) stats: Arc<FuseStats>,
}

/// A file of this file system.
enum Device<'b> {
    Layer(&'b Arc<LazyLayer>),
    Image,
}

/// A part of a read that lies in one file of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntryRange {
    entry: usize,
    offset: u64,
    /// Bytes of content.
    content: usize,
    /// The same with the zeros up to the end of the last block.
    length: usize,
}

/// Where the first bytes of a range of a layer's stream come from; `None` behind its end.
fn entry_range(layer: &LazyLayer, position: u64, length: usize) -> Option<EntryRange> {
    let (entry, offset, left) = layer.table().at_stream(position)?;
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
    let content = layer.table().size(entry).saturating_sub(offset);
    let content = usize::try_from(content).unwrap_or(usize::MAX).min(length);
    Some(EntryRange { entry, offset, content, length })
}

/// A read that has to wait.
enum Waiting {
    /// For the one range that it consists of.
    One(Missing),
    /// It consists of several ranges, and nothing has been read yet.
    Several,
}

impl Waiting {
    /// All bytes from `position` on.
    async fn read(self, layer: &Arc<LazyLayer>, position: u64, length: usize) -> Result<Vec<u8>, FsError> {
        let mut all = Vec::new();
        if let Self::One(missing) = self {
            missing.read(&mut all).await?;
            all.resize(length, 0);
            return Ok(all);
        }
        while all.len() < length {
            let Some(range) = entry_range(layer, position + all.len() as u64, length - all.len()) else {
                break;
            };
            let mut buffer = Vec::new();
            if let Some(missing) = read_entry(layer, range.entry, range.offset, range.content, &mut buffer)? {
                missing.read(&mut buffer).await?;
            }
            buffer.resize(range.length, 0);
            all.append(&mut buffer);
        }
        Ok(all)
    }
}

impl Blobs {
    fn device(&self, number: INodeNo) -> Option<Device<'_>> {
        let index = usize::try_from(number.0.checked_sub(ROOT + 1)?).ok()?;
        match self.layers.get(index) {
            Some(layer) => Some(Device::Layer(layer)),
            None => (index == self.layers.len()).then_some(Device::Image),
        }
    }

    fn attributes(&self, number: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match number.0 {
            ROOT => (FileType::Directory, 0o500, 0),
            _ => match self.device(number)? {
                Device::Layer(layer) => {
                    (FileType::RegularFile, 0o400, u64::from(layer.table().block_count()) * BLOCK_SIZE)
                }
                Device::Image => (FileType::RegularFile, 0o400, self.image_size),
            },
        };
        Some(FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_SIZE as u32,
            flags: 0,
        })
    }

    /// Reads of the image. Its end is that of the file.
    fn read_image(&self, position: u64, length: usize, buffer: &mut Vec<u8>) -> Result<(), FsError> {
        let left = usize::try_from(self.image_size.saturating_sub(position)).unwrap_or(usize::MAX);
        buffer.resize(length.min(left), 0);
        self.image.read_exact_at(buffer, position).map_err(|error| FetchError::from(error).into())
    }

    /// Reads if the cache has all of it; else returns what is to be waited for. `buffer` is resized to all that is
    /// asked for.
    fn read_cached(
        layer: &Arc<LazyLayer>,
        position: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Waiting>, FsError> {
        buffer.clear();
        let Some(range) = entry_range(layer, position, length) else { return Ok(None) };
        if range.length < length {
            return Ok(Some(Waiting::Several));
        }
        let missing = read_entry(layer, range.entry, range.offset, range.content, buffer)?;
        buffer.resize(length, 0);
        Ok(missing.map(Waiting::One))
    }
}

fn failed(stats: &FuseStats, error: &FsError) -> Errno {
    stats.failures().add(Operation::Read);
    errno(error)
}

/// Asks the kernel for what reads of devices need. Returns whether it reads asynchronously.
pub(super) fn negotiate(config: &mut KernelConfig) -> bool {
    let asynchronous = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).is_ok();
    if config.add_capabilities(InitFlags::FUSE_MAX_PAGES).is_err()
        || config.set_max_write(MAX_READ).is_err()
        || config.set_max_background(MAX_BACKGROUND).is_err()
    {
        tracing::debug!("the kernel keeps its limits of requests");
    }
    asynchronous
}

impl Filesystem for Blobs {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.stats.count_request();
        let index = name.to_str().and_then(|name| name.parse::<u32>().ok()).filter(|_| parent.0 == ROOT);
        let number = index.map(|index| INodeNo(ROOT + 1 + u64::from(index)));
        match number.and_then(|number| self.attributes(number)) {
            Some(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.stats.count_request();
        match self.attributes(number) {
            Some(attributes) => reply.attr(&VALID, &attributes),
            None => reply.error(Errno::ESTALE),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.stats.count_request();
        match self.device(number) {
            Some(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            None => reply.error(Errno::EISDIR),
        }
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.stats.count_read();
        let Some(device) = self.device(number) else { return reply.error(Errno::ESTALE) };
        let length = size as usize;
        let waiting = answer_now(
            reply,
            |buffer| match device {
                Device::Layer(layer) => {
                    let waiting = Self::read_cached(layer, offset, length, buffer)?;
                    Ok(waiting.map(|waiting| (waiting, Arc::clone(layer))))
                }
                Device::Image => self.read_image(offset, length, buffer).map(|()| None),
            },
            |_| (),
            |error| failed(&self.stats, error),
        );
        let Some(((waiting, layer), reply)) = waiting else { return };
        let content = async move { waiting.read(&layer, offset, length).await };
        let stats = Arc::clone(&self.stats);
        let failed = move |error: &FsError| failed(&stats, error);
        answer_later(&self.runtime, &self.stats, reply, content, |_| (), failed);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

    use testdata::image::{Entry, Texture};

    use super::*;
    use crate::fronts::forest::tests::Rig;

    #[tokio::test]
    async fn a_layer_is_its_files_each_from_a_block_on() {
        let entries = [
            Entry::dir("d"),
            Entry::made("d/a", Texture::Random, 1, 5000),
            Entry::made("d/empty", Texture::Random, 2, 0),
            Entry::symlink("link", "d/a"),
            Entry::made("whole", Texture::Random, 3, 4096),
            Entry::made("large", Texture::Random, 4, 200_001),
            Entry::made("last", Texture::Random, 5, 0),
        ];
        let made = Rig::new().layer(&entries);
        let mut stream = Vec::new();
        for entry in &entries {
            stream.extend(entry.content().map(|content| content.to_vec()).unwrap_or_default());
            stream.resize(stream.len().next_multiple_of(4096), 0);
        }
        assert_eq!(u64::from(made.lazy.table().block_count()) * BLOCK_SIZE, stream.len() as u64);
        let read = async |position: usize, length: usize| {
            let mut buffer = vec![1; 3];
            match Blobs::read_cached(&made.lazy, position as u64, length, &mut buffer).unwrap() {
                None => buffer,
                Some(waiting) => waiting.read(&made.lazy, position as u64, length).await.unwrap(),
            }
        };
        // Twice: before it is in the cache, and when it is there.
        for _ in 0..2 {
            for (position, length) in [
                (0, 4096),
                (4096, 4096),
                (4096, 904),
                (4999, 2),
                (8192, 4096),
                (12_288, 131_072),
                (0, stream.len()),
                (4000, 9000),
                (stream.len() - 1, 1),
                (stream.len() - 10, 4096),
                (stream.len(), 4096),
                (1 << 40, 4096),
            ] {
                let end = (position + length).min(stream.len());
                let expected = stream.get(position..end).unwrap_or_default();
                assert!(read(position, length).await == expected, "{position} {length}");
            }
        }
        assert!(Blobs::read_cached(&made.lazy, u64::MAX, 4096, &mut Vec::new()).unwrap().is_none());
    }
}
