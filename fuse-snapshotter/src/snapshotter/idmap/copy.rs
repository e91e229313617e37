//! Copies of directories with other owners.
//!
//! Everything else stays as it is: contents with their holes, modes, times, hard links, devices, and extended
//! attributes, overlayfs's own included. Only those that name ids are translated, too (see [`IdMaps::xattr`]).
//!
//! One walk. All of it goes by directory descriptors and single names, and follows no link, so that nothing is read or
//! written outside of the two directories, whatever is in the first. No recursion, and two descriptors at a time:
//! layers may be thousands of levels deep.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::fronts::forest::IdMaps;
use crate::image::unpack::{open_path, shown, split};

/// Bytes that are copied between two looks at whether the copy is still wanted.
const CHUNK: u64 = 16 << 20;
/// Bytes that are copied at a time where the kernel cannot copy by itself.
const BUFFER: usize = 1 << 20;
/// Largest value, and largest list of names, of extended attributes: the kernel's limit.
const MAX_XATTR: usize = 64 << 10;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path} for a container's user namespace: {source}")]
pub(super) struct CopyError {
    /// What was tried.
    operation: &'static str,
    /// The path in the directory, for people.
    path: String,
    /// Why not; [`io::ErrorKind::Interrupted`] if nobody wants the copy any more.
    source: io::Error,
}

/// What was tried, and what the kernel said.
type Failure = (&'static str, Errno);
type Tried<T> = Result<T, Failure>;
/// With the name, in the current directory, that the failure is about; empty for the directory itself.
type Visited<T> = Result<T, (Vec<u8>, Failure)>;

trait Op<T> {
    fn op(self, operation: &'static str) -> Tried<T>;
}

impl<T> Op<T> for Result<T, Errno> {
    fn op(self, operation: &'static str) -> Tried<T> {
        self.map_err(|error| (operation, error))
    }
}

/// Copies what is in `source`, and its attributes, to `target`, a directory that exists, is empty, and that nobody else
/// uses meanwhile. Ends early once `abandoned`. Nothing is synced.
pub(super) fn copy(
    source: &Path,
    target: &Path,
    ids: &IdMaps,
    abandoned: &dyn Fn() -> bool,
) -> Result<(), CopyError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |path: &Path| {
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| CopyError {
            operation: "open",
            path: path.display().to_string(),
            source: error.into(),
        })
    };
    let mut walk = Walk {
        source: open(source)?,
        target: open(target)?,
        ids,
        abandoned,
        path: Vec::new(),
        links: HashMap::new(),
        xattr_names: vec![0; MAX_XATTR],
        xattr_value: vec![0; MAX_XATTR],
    };
    walk.run().map_err(|(name, (operation, error))| {
        let mut path = walk.path.clone();
        append(&mut path, &name);
        CopyError { operation, path: shown(&path), source: error.into() }
    })
}

/// A file with several names, once it has the first.
struct Link {
    /// That name's path.
    first: Vec<u8>,
    /// How many more names it has, in the directory or elsewhere.
    left: u64,
}

struct Walk<'a> {
    source: OwnedFd,
    target: OwnedFd,
    ids: &'a IdMaps,
    abandoned: &'a dyn Fn() -> bool,
    /// The current directory.
    path: Vec<u8>,
    /// By inode number.
    links: HashMap<u64, Link>,
    xattr_names: Vec<u8>,
    xattr_value: Vec<u8>,
}

fn append(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

impl Walk<'_> {
    fn run(&mut self) -> Visited<()> {
        // For each directory down to the current one: those in it that are still to be entered.
        let mut levels = vec![self.enter()?];
        while let Some(level) = levels.last_mut() {
            match level.pop() {
                Some(name) => {
                    append(&mut self.path, name.as_bytes());
                    levels.push(self.enter()?);
                }
                None => {
                    self.leave().map_err(|error| (Vec::new(), error))?;
                    levels.pop();
                    let parent = split(&self.path).0.len();
                    self.path.truncate(parent);
                }
            }
        }
        Ok(())
    }

    /// The current directory in the source and in the copy.
    fn current(&self) -> Tried<(OwnedFd, OwnedFd)> {
        Ok((
            open_path(self.source.as_fd(), &self.path).op("open")?,
            open_path(self.target.as_fd(), &self.path).op("open the copy of")?,
        ))
    }

    /// Copies what is in the current directory. Directories in it are made, and returned.
    fn enter(&mut self) -> Visited<Vec<CString>> {
        let here = |error| (Vec::new(), error);
        let (from, to) = self.current().map_err(here)?;
        let mut directories = Vec::new();
        for entry in Dir::read_from(&from).op("list").map_err(here)? {
            let entry = entry.op("list").map_err(here)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_directory = self
                .copy_entry(from.as_fd(), to.as_fd(), name)
                .map_err(|error| (name.to_bytes().to_vec(), error))?;
            if is_directory {
                directories.push(name.to_owned());
            }
        }
        Ok(directories)
    }

    /// Describes the current directory, once nothing in it is changed any more.
    fn leave(&mut self) -> Tried<()> {
        let (from, to) = self.current()?;
        let stat = rustix::fs::fstat(&from).op("read")?;
        self.describe(&File::Open(from.as_fd()), &File::Open(to.as_fd()), &stat)
    }

    /// Copies one name. Of a directory, for which it returns `true`, the name alone.
    fn copy_entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Tried<bool> {
        self.check_wanted()?;
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).op("read")?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            // Nobody but us may look into it until it is as it should be.
            rustix::fs::mkdirat(to, name, Mode::RWXU).op("make the directory")?;
            return Ok(true);
        }
        if stat.st_nlink > 1 && self.link(to, name, stat.st_ino)? {
            return Ok(false);
        }
        match kind {
            FileType::RegularFile => self.copy_file(from, to, name, &stat)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new()).op("read")?;
                rustix::fs::symlinkat(link.as_c_str(), to, name).op("copy the link")?;
                self.describe(&File::named(from, name, kind)?, &File::named(to, name, kind)?, &stat)?;
            }
            _ => {
                rustix::fs::mknodat(to, name, kind, Mode::empty(), stat.st_rdev).op("make")?;
                self.describe(&File::named(from, name, kind)?, &File::named(to, name, kind)?, &stat)?;
            }
        }
        if stat.st_nlink > 1 {
            let mut first = self.path.clone();
            append(&mut first, name.to_bytes());
            #[cfg_attr(
                target_arch = "x86_64",
                expect(
                    clippy::useless_conversion,
                    reason = "the number is of another type on other machines"
                )
            )]
            let names = u64::from(stat.st_nlink);
            self.links.insert(stat.st_ino, Link { first, left: names - 1 });
        }
        Ok(false)
    }

    /// Gives a file that was copied before one more name, if it was.
    fn link(&mut self, to: BorrowedFd<'_>, name: &CStr, inode: u64) -> Tried<bool> {
        let Some(link) = self.links.get_mut(&inode) else { return Ok(false) };
        let (parent, first) = split(&link.first);
        let parent = open_path(self.target.as_fd(), parent).op("open the directory of a hard link for")?;
        rustix::fs::linkat(&parent, first, to, name, AtFlags::empty()).op("make a hard link for")?;
        link.left -= 1;
        if link.left == 0 {
            self.links.remove(&inode);
        }
        Ok(true)
    }

    fn copy_file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Tried<()> {
        // Should it be none by now, a pipe is not waited for.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let from = rustix::fs::openat(from, name, flags | OFlags::RDONLY, Mode::empty()).op("open")?;
        let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let to = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).op("make")?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.copy_content(&from, &to, size).op("copy")?;
        self.describe(&File::Open(from.as_fd()), &File::Open(to.as_fd()), stat)
    }

    fn copy_content(&self, from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
        // Where the file system can share blocks, there is nothing to copy.
        if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
            return Ok(());
        }
        rustix::fs::ftruncate(to, size)?;
        let mut position = 0;
        while position < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(position)) {
                Ok(start) => start,
                // A hole up to the end.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
                Err(error) => return Err(error),
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size);
            let end = if end > start { end.min(size) } else { size };
            self.copy_range(from, to, start, end)?;
            position = end;
        }
        Ok(())
    }

    fn copy_range(&self, from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
        let (mut read, mut written) = (start, start);
        while read < end {
            if (self.abandoned)() {
                return Err(Errno::INTR);
            }
            let length = (end - read).min(CHUNK) as usize;
            match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
                // Some file systems and kernels say so instead of that they cannot.
                Ok(0) => return self.copy_by_hand(from, to, read, end),
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                    return self.copy_by_hand(from, to, read, end);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn copy_by_hand(&self, from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
        let mut buffer = vec![0; BUFFER];
        let mut position = start;
        while position < end {
            if (self.abandoned)() {
                return Err(Errno::INTR);
            }
            let wanted = (end - position).min(BUFFER as u64) as usize;
            let length = rustix::io::pread(from, &mut buffer[..wanted], position)?;
            if length == 0 {
                // Shorter than it was a moment ago: nobody should write to a layer.
                return Err(Errno::IO);
            }
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let written = rustix::io::pwrite(to, rest, position)?;
                rest = rest.get(written..).unwrap_or_default();
                position += written as u64;
            }
        }
        Ok(())
    }

    fn check_wanted(&self) -> Tried<()> {
        if (self.abandoned)() { Err(("copy", Errno::INTR)) } else { Ok(()) }
    }

    /// Gives the copy its attributes. The order matters: a change of the owner clears setuid bits and capabilities.
    fn describe(&mut self, from: &File<'_>, to: &File<'_>, stat: &Stat) -> Tried<()> {
        let (uid, gid) = (self.ids.uid(stat.st_uid), self.ids.gid(stat.st_gid));
        to.chown(Uid::from_raw(uid), Gid::from_raw(gid)).op("change the owner of")?;
        let length = match from.list_xattrs(&mut self.xattr_names) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(("list the extended attributes of", error)),
        };
        let names = self.xattr_names.get(..length).unwrap_or_default();
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            let length = match from.get_xattr(name, &mut self.xattr_value) {
                Ok(length) => length,
                // Capabilities that have no force here.
                Err(Errno::NODATA | Errno::OVERFLOW) => continue,
                Err(error) => return Err(("read an extended attribute of", error)),
            };
            let value = self.xattr_value.get(..length).unwrap_or_default();
            let Some(value) = self.ids.xattr(name.to_bytes(), value) else { continue };
            match to.set_xattr(name, &value) {
                // Labels that the kernel gives out by itself, when it is configured so.
                Err(Errno::OPNOTSUPP) if name.to_bytes() == b"security.selinux" => {}
                result => result.op("set an extended attribute of")?,
            }
        }
        to.chmod(Mode::from_raw_mode(stat.st_mode & 0o7777)).op("change the mode of")?;
        let times = Timestamps {
            last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
        };
        to.set_times(&times).op("set the times of")
    }
}

/// A file whose attributes are read or written.
enum File<'a> {
    Open(BorrowedFd<'a>),
    /// What cannot be opened without consequences.
    Named {
        directory: BorrowedFd<'a>,
        name: &'a CStr,
        is_symlink: bool,
        /// Calls for extended attributes take a directory's descriptor from Linux 6.13 on only. This leads to the
        /// directory, whatever its path is, and the last component is not followed.
        path: CString,
    },
}

impl<'a> File<'a> {
    fn named(directory: BorrowedFd<'a>, name: &'a CStr, kind: FileType) -> Tried<Self> {
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        let path = CString::new(path).map_err(|_| ("name", Errno::INVAL))?;
        Ok(Self::Named { directory, name, is_symlink: kind == FileType::Symlink, path })
    }

    fn chown(&self, uid: Uid, gid: Gid) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fchown(fd, Some(uid), Some(gid)),
            Self::Named { directory, name, .. } => {
                rustix::fs::chownat(directory, *name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn list_xattrs(&self, names: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, &mut *names),
            Self::Named { path, .. } => rustix::fs::llistxattr(path.as_c_str(), &mut *names),
        }
    }

    fn get_xattr(&self, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut *value),
            Self::Named { path, .. } => rustix::fs::lgetxattr(path.as_c_str(), name, &mut *value),
        }
    }

    fn set_xattr(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named { path, .. } => {
                rustix::fs::lsetxattr(path.as_c_str(), name, value, XattrFlags::empty())
            }
        }
    }

    fn chmod(&self, mode: Mode) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Named { is_symlink: true, .. } => Ok(()),
            // Follows links, but this is none, and nobody else is here to make it one.
            Self::Named { directory, name, .. } => {
                rustix::fs::chmodat(directory, *name, mode, AtFlags::empty())
            }
        }
    }

    fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, times),
            Self::Named { directory, name, .. } => {
                rustix::fs::utimensat(directory, *name, times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }
}
