//! A FUSE file system that shows a directory of the disk and has the kernel read its files by itself (passthrough): the most
//! that passthrough could do for ours.
//!
//! It is better off than ours could be: the files are there already, one for each inode, nothing has to be checked, and
//! what was opened once stays registered. What is left is what passthrough costs in any case: a request for each open,
//! because the kernel that reads a file by itself has to be told from where.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use fuser::{
    BackgroundSession, BackingId, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, MountOption, OpenFlags, ReplyAttr, ReplyDirectoryPlus,
    ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};

const VALID: Duration = Duration::from_secs(24 * 60 * 60);
/// Threads that take requests, as many as `soci-snapshotter-grpc mount` has.
const THREADS: usize = 4;

/// A mounted mirror, unmounted when dropped.
#[derive(Debug)]
pub struct MirrorMount {
    directory: PathBuf,
    _session: BackgroundSession,
}

impl MirrorMount {
    /// Shows `of` at `directory`. What is in `of` must stay as it is.
    ///
    /// # Errors
    /// If it cannot be mounted, or the kernel has no passthrough (before Linux 6.9).
    pub fn new(of: &Path, directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        config.acl = SessionACL::All;
        config.mount_options =
            vec![MountOption::FSName("mirror".into()), MountOption::RO, MountOption::DefaultPermissions];
        let session = Session::new(Mirror::of(of)?, directory, &config).context("cannot mount the mirror")?;
        Ok(Self { directory: directory.to_owned(), _session: session.spawn()? })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A directory or regular file.
#[derive(Debug)]
struct Node {
    path: PathBuf,
    attr: FileAttr,
    /// Sorted by name, with their inode numbers.
    children: Vec<(OsString, u64)>,
}

/// Inode numbers are indices, from 1 on.
#[derive(Debug)]
struct Mirror {
    nodes: Vec<Node>,
    /// What was opened, by inode number. The kernel wants the same id for all opens of an inode.
    backing: Mutex<HashMap<u64, BackingId>>,
}

impl Mirror {
    fn of(root: &Path) -> io::Result<Self> {
        let mut nodes = vec![Node::new(root.to_owned(), 1, &std::fs::metadata(root)?)];
        let mut at = 0;
        while at < nodes.len() {
            if nodes[at].attr.kind == FileType::Directory {
                let mut names = std::fs::read_dir(&nodes[at].path)?.collect::<io::Result<Vec<_>>>()?;
                names.sort_by_key(std::fs::DirEntry::file_name);
                for name in names {
                    let number = nodes.len() as u64 + 1;
                    nodes.push(Node::new(name.path(), number, &name.metadata()?));
                    nodes[at].children.push((name.file_name(), number));
                }
            }
            at += 1;
        }
        Ok(Self { nodes, backing: Mutex::default() })
    }

    fn node(&self, number: INodeNo) -> Option<&Node> {
        self.nodes.get(usize::try_from(number.0).ok()?.checked_sub(1)?)
    }
}

impl Node {
    fn new(path: PathBuf, number: u64, metadata: &Metadata) -> Self {
        let kind = if metadata.is_dir() { FileType::Directory } else { FileType::RegularFile };
        let mtime = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let attr = FileAttr {
            ino: INodeNo(number),
            size: metadata.len(),
            blocks: metadata.blocks(),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind,
            perm: (metadata.permissions().mode() & 0o7777) as u16,
            nlink: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
            uid: metadata.uid(),
            gid: metadata.gid(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        Self { path, attr, children: Vec::new() }
    }
}

impl Filesystem for Mirror {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_PASSTHROUGH;
        config
            .add_capabilities(wanted)
            .map_err(|lacking| io::Error::other(format!("the kernel lacks {lacking:?}")))?;
        // Files on a file system that is not stacked itself; this one may still be below an overlay.
        config.set_max_stack_depth(1).map_err(|_| io::Error::other("the kernel has no passthrough"))?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.node(parent).and_then(|node| {
            let index = node.children.binary_search_by(|(child, _)| child.as_os_str().cmp(name)).ok()?;
            self.node(INodeNo(node.children[index].1))
        });
        match found {
            Some(node) => reply.entry(&VALID, &node.attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(number) {
            Some(node) => reply.attr(&VALID, &node.attr),
            None => reply.error(Errno::ESTALE),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let Some(node) = self.node(number) else { return reply.error(Errno::ESTALE) };
        let mut backing = self.backing.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match backing.entry(number.0) {
            Entry::Occupied(entry) => entry.into_mut(),
            // The kernel keeps the file open by itself.
            Entry::Vacant(entry) => match File::open(&node.path).and_then(|file| reply.open_backing(&file)) {
                Ok(id) => entry.insert(id),
                Err(error) => return reply.error(error.into()),
            },
        };
        reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), id);
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let children = self.node(number).map_or(&[][..], |node| &node.children);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (position, (name, child)) in (1..).zip(children).skip(start) {
            let Some(node) = self.node(INodeNo(*child)) else { continue };
            if reply.add(node.attr.ino, position, name, &VALID, &node.attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}
