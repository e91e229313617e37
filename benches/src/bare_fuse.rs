//! A FUSE file system that does nothing but list names: what any server has to pay the kernel for a listing at least.
//!
//! Most of the time that a first listing takes is the kernel's, which makes an inode of every name, and the way to the
//! server and back. Both depend on the machine and on what else it does, so that a bare time says little.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::bail;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    InitFlags, KernelConfig, MountOption, OpenFlags, ReplyAttr, ReplyDirectoryPlus, ReplyOpen, Request,
    Session, SessionACL,
};

const VALID: Duration = Duration::from_secs(24 * 60 * 60);
/// Threads that take requests, as many as `soci-snapshotter-grpc mount` has.
const THREADS: usize = 4;
const ROOT: u64 = 1;

/// A mount of `/srv/dNNN/dNNN/fNNN.txt`, with `fan` names in each of the two lower levels of directories and files.
#[derive(Debug)]
pub struct BareMount {
    requests: Arc<AtomicU64>,
    session: BackgroundSession,
}

impl BareMount {
    /// Mounts it, with `files` files, a multiple of `fan` squared.
    ///
    /// # Errors
    /// If it cannot be mounted, or the kernel lacks what a fast listing takes.
    pub fn new(directory: &Path, files: usize, fan: usize) -> anyhow::Result<Self> {
        let (files, fan) = (files as u64, fan as u64);
        if fan == 0 || !files.is_multiple_of(fan * fan) {
            bail!("{files} files do not fill directories of {fan}");
        }
        std::fs::create_dir_all(directory)?;
        let requests = Arc::new(AtomicU64::new(0));
        let names = |prefix: &str, suffix: &str| {
            (0..fan.max(files / fan / fan)).map(|number| format!("{prefix}{number:03}{suffix}")).collect()
        };
        let bare = Bare {
            requests: Arc::clone(&requests),
            // As long as those of the layer, which are numbered through.
            files: names("f000", ".txt"),
            directories: names("d", ""),
            outer: files / fan / fan,
            fan,
        };
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        config.acl = SessionACL::All;
        config.mount_options =
            vec![MountOption::FSName("bare".into()), MountOption::RO, MountOption::DefaultPermissions];
        let session = Session::new(bare, directory, &config)?.spawn()?;
        Ok(Self { requests, session })
    }

    /// Unmounts; returns how many requests there were.
    ///
    /// # Errors
    /// If it cannot be unmounted.
    pub fn finish(self) -> anyhow::Result<u64> {
        self.session.umount_and_join()?;
        Ok(self.requests.load(Ordering::Relaxed))
    }
}

/// Inode numbers: 1 is the root, 2 `srv`, and then level by level. They are computed, so that nothing is looked up.
#[derive(Debug)]
struct Bare {
    requests: Arc<AtomicU64>,
    files: Vec<String>,
    directories: Vec<String>,
    /// Directories in `srv`.
    outer: u64,
    fan: u64,
}

impl Bare {
    /// First inode number of directories below `srv`, of those in these, and of files.
    fn levels(&self) -> [u64; 3] {
        let first = ROOT + 2;
        [first, first + self.outer, first + self.outer + self.outer * self.fan]
    }

    /// Inode number of the first name in a directory, and how many there are, with their names.
    fn children(&self, directory: u64) -> (u64, u64, &[String]) {
        let [outer, inner, file] = self.levels();
        match directory {
            0 => (0, 0, &[]),
            ROOT => (ROOT + 1, 1, &self.directories),
            number if number < outer => (outer, self.outer, &self.directories),
            number if number < inner => (inner + (number - outer) * self.fan, self.fan, &self.directories),
            number if number < file => (file + (number - inner) * self.fan, self.fan, &self.files),
            _ => (0, 0, &[]),
        }
    }

    fn attributes(&self, number: u64) -> FileAttr {
        let [_, _, file] = self.levels();
        let kind = if number < file { FileType::Directory } else { FileType::RegularFile };
        FileAttr {
            ino: INodeNo(number),
            size: 4096,
            blocks: 8,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Filesystem for Bare {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        config
            .add_capabilities(wanted)
            .map_err(|lacking| io::Error::other(format!("the kernel lacks {lacking:?}")))
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.count();
        reply.attr(&VALID, &self.attributes(number.0));
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count();
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
        self.count();
        let (first, length, names) = self.children(number.0);
        for (child, name) in (0..length).zip(names).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let attr = self.attributes(first + child);
            if reply.add(attr.ino, child + 1, name, &VALID, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}
