//! The directory tree that a layer is unpacked into. Everything in it is reached without following links.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;
use ztoc::Timestamp;

use super::attributes::{Attributes, Failure, Writer, op};
use super::error::UnpackError;
use super::options::{Options, Whiteouts};

/// Longest path, in bytes: the kernel's `PATH_MAX`, and what [`crate::content::tree`] takes.
const MAX_PATH: usize = 4096;
/// Longest name, in bytes: the kernel's `NAME_MAX`.
const MAX_NAME: usize = 255;
/// Memory of a directory in [`Place::directories`], besides what its path and extended attributes take.
const DIRECTORY_MEMORY: usize = 192;

/// A name cleaned as if it were absolute: components between single slashes, none of them `.` or `..`. Empty
/// for the root.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    if name.len() > MAX_PATH {
        return Err("the path is longer than 4096 bytes");
    }
    let mut path: Vec<u8> = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            _ if component.len() > MAX_NAME => return Err("a name is longer than 255 bytes"),
            _ if component.contains(&0) => return Err("a name contains a NUL byte"),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(path)
}

/// A clean path's directory and last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Where a layer goes.
pub(super) struct Place {
    root: Rc<OwnedFd>,
    /// The directory used last: entries mostly come directory by directory.
    current: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// What directories will be, by path. Written last, so that entries that come later do not change the
    /// times, find a directory they may not write to, or inherit its group or its default ACL; and so that a
    /// directory that comes twice has the later attributes only. Until then all have mode 0700.
    directories: BTreeMap<Vec<u8>, Attributes>,
    memory: usize,
    memory_limit: usize,
    opaque: &'static str,
    origin: &'static str,
}

impl Place {
    pub(super) fn open(target: &Path, options: &Options) -> Result<Self, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(target, flags, Mode::empty()).map_err(|source| UnpackError::Target {
            path: target.display().to_string(),
            source: source.into(),
        })?;
        Ok(Self {
            root: Rc::new(root),
            current: None,
            directories: BTreeMap::new(),
            memory: 0,
            memory_limit: options.limits.directory_memory,
            opaque: match options.whiteouts {
                Whiteouts::Overlay => "trusted.overlay.opaque",
                Whiteouts::UserXattr => "user.overlay.opaque",
            },
            origin: match options.whiteouts {
                Whiteouts::Overlay => "trusted.overlay.origin",
                Whiteouts::UserXattr => "user.overlay.origin",
            },
        })
    }

    /// The directory of a clean path. Parents that are missing are made, and what is no directory is replaced.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Failure> {
        let (parent, _) = split(path);
        if let Some(known) = self.known(parent) {
            return Ok(known);
        }
        let directory = match open_beneath(&self.root, parent) {
            Ok(directory) => Rc::new(directory),
            Err(_) => self.make_directories(parent)?,
        };
        self.current = Some((parent.to_vec(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// The directory of a clean path, if there is one.
    pub(super) fn existing_parent(&self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        let (parent, _) = split(path);
        match self.known(parent) {
            Some(known) => Ok(known),
            None => open_path(self.root.as_fd(), parent).map(Rc::new),
        }
    }

    fn known(&self, directory: &[u8]) -> Option<Rc<OwnedFd>> {
        if directory.is_empty() {
            return Some(Rc::clone(&self.root));
        }
        self.current.as_ref().filter(|(path, _)| path == directory).map(|(_, fd)| Rc::clone(fd))
    }

    /// Makes `path` a directory, keeping the one that is there.
    pub(super) fn add_directory(&mut self, path: &[u8], attributes: Attributes) -> Result<(), Failure> {
        if !path.is_empty() {
            let parent = self.parent(path)?;
            let directory = self.enter(&parent, path)?;
            self.current = Some((path.to_vec(), Rc::new(directory)));
        }
        self.set_directory(path, attributes);
        Ok(())
    }

    fn make_directories(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Failure> {
        let mut directory = Rc::clone(&self.root);
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in slashes.chain([path.len()]) {
            directory = Rc::new(self.enter(&directory, &path[..end])?);
        }
        Ok(directory)
    }

    /// Opens the directory `path` in its parent. If there is none it is made.
    fn enter(&mut self, parent: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Failure> {
        let (_, name) = split(path);
        let mut was_whiteout = false;
        match open_child(parent.as_fd(), name) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT) => {}
            // Something else is there: a file, or (ELOOP) a link.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                was_whiteout = is_whiteout(parent.as_fd(), name)?;
                self.remove(parent.as_fd(), path)?;
            }
            Err(source) => return Err(Failure { operation: "open a directory", source }),
        }
        op("make a directory", rustix::fs::mkdirat(parent, name, Mode::RWXU))?;
        let directory = op("open a directory", open_child(parent.as_fd(), name))?;
        if was_whiteout {
            // What the layers below have there stays hidden.
            self.mark_opaque(directory.as_fd())?;
        }
        self.set_directory(path, implied());
        Ok(directory)
    }

    /// Makes what lower layers have at `path` invisible, but not what this layer has there.
    pub(super) fn add_whiteout(&mut self, path: &[u8]) -> Result<(), Failure> {
        let parent = self.parent(path)?;
        let (_, name) = split(path);
        // Overlayfs looks for whiteouts only where it expects some; in a directory that nothing lies below it would
        // list them. Where this cannot be set nothing worse happens.
        let _ = rustix::fs::fsetxattr(&parent, self.origin, b"", XattrFlags::empty());
        match rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => match open_child(parent.as_fd(), name) {
                Ok(directory) => self.mark_opaque(directory.as_fd()),
                Err(_) => Ok(()),
            },
            other => op("make a whiteout", other),
        }
    }

    pub(super) fn mark_opaque(&self, directory: BorrowedFd<'_>) -> Result<(), Failure> {
        op("mark as opaque", rustix::fs::fsetxattr(directory, self.opaque, b"y", XattrFlags::empty()))
    }

    /// Makes a new file with `make`, in the place of whatever is there.
    pub(super) fn replace<T>(
        &mut self,
        operation: &'static str,
        path: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<(T, Rc<OwnedFd>), Failure> {
        let parent = self.parent(path)?;
        let (_, name) = split(path);
        match make(parent.as_fd(), name) {
            Err(Errno::EXIST) => {
                self.remove(parent.as_fd(), path)?;
                op(operation, make(parent.as_fd(), name)).map(|made| (made, parent))
            }
            other => op(operation, other).map(|made| (made, parent)),
        }
    }

    /// Removes what is at `path`, in its parent, with all that is in it.
    pub(super) fn remove(&mut self, parent: BorrowedFd<'_>, path: &[u8]) -> Result<(), Failure> {
        let (_, name) = split(path);
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            other => return op("replace", other),
        }
        self.current = None;
        self.forget(path);
        op("replace a directory", remove_tree(parent, name))
    }

    fn set_directory(&mut self, path: &[u8], attributes: Attributes) {
        self.memory += directory_memory(path, &attributes);
        if let Some(before) = self.directories.insert(path.to_vec(), attributes) {
            self.memory -= directory_memory(path, &before);
        }
    }

    /// Whether directories take more memory than they may.
    pub(super) fn check_memory(&self) -> Result<(), UnpackError> {
        if self.memory > self.memory_limit {
            return Err(UnpackError::Limit {
                what: "memory for directories",
                limit: self.memory_limit as u64,
            });
        }
        Ok(())
    }

    /// Forgets a directory and those below it.
    fn forget(&mut self, path: &[u8]) {
        if let Some(attributes) = self.directories.remove(path) {
            self.memory -= directory_memory(path, &attributes);
        }
        // Paths that begin with `path/` sort before `path0`, since 0 follows the slash in ASCII.
        let below = [path, b"/"].concat()..[path, b"0"].concat();
        let paths: Vec<_> = self.directories.range(below).map(|(path, _)| path.clone()).collect();
        for path in paths {
            if let Some(attributes) = self.directories.remove(&path) {
                self.memory -= directory_memory(&path, &attributes);
            }
        }
    }

    /// Gives directories their attributes, deepest first: one may take away the right to go through it. Returns
    /// those that the layer does not mention itself, parents before what is in them.
    pub(super) fn finish(mut self, writer: &mut Writer) -> Result<Vec<Vec<u8>>, UnpackError> {
        self.current = None;
        self.directories.entry(Vec::new()).or_insert_with(implied);
        let mut unmentioned = Vec::new();
        // A path sorts after its parents.
        while let Some((path, mut attributes)) = self.directories.pop_last() {
            if attributes.mtime.is_none() {
                // The same everywhere, rather than the time at which the layer happened to be unpacked.
                attributes.mtime = Some(Timestamp { seconds: 0, nanos: 0 });
                unmentioned.push(path.clone());
            }
            let directory = open_path(self.root.as_fd(), &path)
                .map_err(|source| UnpackError::io(&path, "open a directory", source))?;
            writer
                .write_open(&path, directory.as_fd(), &attributes)
                .map_err(|failure| UnpackError::io(&path, failure.operation, failure.source))?;
        }
        unmentioned.reverse();
        Ok(unmentioned)
    }
}

/// What a directory is like that no entry describes.
fn implied() -> Attributes {
    Attributes { mode: 0o755, uid: 0, gid: 0, mtime: None, xattrs: Vec::new() }
}

fn directory_memory(path: &[u8], attributes: &Attributes) -> usize {
    let xattrs = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64);
    DIRECTORY_MEMORY + path.len() + xattrs.sum::<usize>()
}

fn is_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Failure> {
    let stat = op("look at", rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory by its name, which is one component.
fn open_child(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Opens a directory by its clean path in one call.
fn open_beneath(base: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(base, path, DIRECTORY, Mode::empty(), resolve)
}

/// Opens a directory by its clean path, name by name where `openat2` does not do: for paths that are too long for
/// one call, and under seccomp profiles that do not know it.
pub(crate) fn open_path(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut directory = rustix::fs::openat(base, ".", DIRECTORY, Mode::empty())?;
    if path.is_empty() {
        return Ok(directory);
    }
    if let Ok(directory) = open_beneath(&directory, path) {
        return Ok(directory);
    }
    for name in path.split(|byte| *byte == b'/') {
        directory = open_child(directory.as_fd(), name)?;
    }
    Ok(directory)
}

/// Removes a directory with all that is in it. No recursion, and one descriptor at a time: hostile layers are
/// two thousand levels deep.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let mut path = name.to_vec();
    'directory: loop {
        let directory = open_path(parent, &path)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                other => {
                    other?;
                    continue;
                }
            }
            match rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    // First what is in it; then this directory again from its beginning.
                    path.push(b'/');
                    path.extend_from_slice(name.to_bytes());
                    continue 'directory;
                }
                other => other?,
            }
        }
        let (up, last) = split(&path);
        if path.len() == name.len() {
            return rustix::fs::unlinkat(parent, last, AtFlags::REMOVEDIR);
        }
        rustix::fs::unlinkat(open_path(parent, up)?, last, AtFlags::REMOVEDIR)?;
        path.truncate(up.len());
    }
}
