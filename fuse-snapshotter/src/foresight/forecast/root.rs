//! The files of an image, by their paths.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::command::{Command, MAX_DIRECTORIES};
use crate::content::LazyLayer;
use crate::content::tree::InodeKind;
use crate::fronts::forest::{Attributes, Forest, STATE_DIRECTORY};
use crate::image::stacking::StackPart;

/// Symbolic links in one path, at most, as in the kernel.
const MAX_LINKS: usize = 40;

/// Longest path, in bytes.
const MAX_PATH: usize = 1024;

/// Names that are looked up for one image, at most: a second's work. Images can be made so that they lead nowhere for
/// hours.
const MAX_LOOKUPS: usize = 1_000_000;

/// Names of one directory of one part that are looked at, at most.
const MAX_NAMES: usize = 1000;

/// Where libraries are when nothing says so; the directories of architectures are added.
const USUAL_LIBRARIES: [&str; 5] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];

/// Directories of architectures below [`USUAL_LIBRARIES`], as Debian and its children have them.
const ARCHITECTURES: [&str; 8] = [
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "riscv64-linux-gnu",
    "powerpc64le-linux-gnu",
    "s390x-linux-gnu",
    "arm-linux-gnueabihf",
    "i386-linux-gnu",
    "loongarch64-linux-gnu",
];

/// One of the directories that an image is stacked from: the root of a tree of lazy layers, by its inode number, or
/// unpacked layers.
pub(crate) type RootPart = StackPart<u64, PathBuf>;

/// The files of an image.
#[derive(Debug)]
pub(crate) struct Root {
    forest: Arc<Forest>,
    /// Topmost first.
    parts: Vec<RootPart>,
    lookups: AtomicUsize,
}

/// A regular file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) place: Place,
    pub(super) size: u64,
    pub(super) executable: bool,
    /// Its path, without links; unknown for a file that was not found by its path.
    pub(super) path: Option<Vec<u8>>,
}

impl File {
    /// Its directory, without links.
    pub(super) fn directory(&self) -> Option<&[u8]> {
        let path = self.path.as_deref()?;
        path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Inode number in the forest.
    Tree(u64),
    /// A part, and the path in it, without links.
    Directory(usize, Vec<u8>),
}

/// The bytes of a file.
#[derive(Debug)]
pub(super) enum FileContent {
    /// In a layer that is read lazily.
    Lazy { layer: Arc<LazyLayer>, entry: usize, size: u64 },
    /// On this disk.
    Local(std::fs::File),
    /// Nowhere.
    None,
}

/// What stands at a path, without following links.
enum Node {
    Directory,
    File(File),
    Link(Vec<u8>),
}

impl Root {
    pub(crate) fn new(forest: Arc<Forest>, parts: Vec<RootPart>) -> Self {
        Self { forest, parts, lookups: AtomicUsize::new(0) }
    }

    /// The regular file at an absolute path; links are followed.
    pub(super) fn find(&self, path: &[u8]) -> Option<File> {
        match self.resolve(path)? {
            (path, Node::File(file)) => Some(File { path: Some(path), ..file }),
            _ => None,
        }
    }

    /// The path of the directory at an absolute path, without links; `None` if there is none.
    pub(super) fn directory(&self, path: &[u8]) -> Option<Vec<u8>> {
        match self.resolve(path)? {
            (path, Node::Directory) => Some(path),
            _ => None,
        }
    }

    /// The paths of what is in the directory at an absolute path; links to it are followed. `None` if it is no
    /// directory.
    pub(super) fn list(&self, path: &[u8]) -> Option<Vec<Vec<u8>>> {
        let path = self.directory(path)?;
        let mut all = BTreeSet::new();
        for part in &self.parts {
            let names = match part {
                RootPart::Tree(root) => self.names_in_tree(*root, &path),
                RootPart::Directory(directory) => names_on_disk(directory, &path),
            };
            let names = names.unwrap_or_default();
            if !self.may_look_up(names.len() + components(&path).count()) {
                return None;
            }
            all.extend(names);
        }
        Some(all.into_iter().map(|name| [&path[..], b"/", &name].concat()).collect())
    }

    /// Whether so many names more may be looked up.
    fn may_look_up(&self, names: usize) -> bool {
        self.lookups.fetch_add(names, Ordering::Relaxed) <= MAX_LOOKUPS
    }

    /// What stands at an absolute path, and its path without links.
    fn resolve(&self, path: &[u8]) -> Option<(Vec<u8>, Node)> {
        let mut links = 0;
        let mut left: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut at: Vec<u8> = Vec::new();
        while let Some(name) = left.pop() {
            if name == b".." {
                at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let before = at.len();
            at.push(b'/');
            at.extend_from_slice(&name);
            if at.len() > MAX_PATH {
                return None;
            }
            match self.node(&at)? {
                Node::Directory => {}
                file @ Node::File(_) => return left.is_empty().then_some((at, file)),
                Node::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS || target.len() > MAX_PATH {
                        return None;
                    }
                    at.truncate(if target.starts_with(b"/") { 0 } else { before });
                    left.extend(components(&target).rev().map(<[u8]>::to_vec));
                }
            }
        }
        Some((at, Node::Directory))
    }

    /// What the topmost part that has something at a path has there. That a part may hide it is passed over.
    fn node(&self, path: &[u8]) -> Option<Node> {
        if !self.may_look_up(components(path).count() * self.parts.len()) {
            return None;
        }
        self.parts.iter().enumerate().find_map(|(number, part)| match part {
            RootPart::Tree(root) => self.in_tree(*root, path),
            RootPart::Directory(directory) => on_disk(number, directory, path),
        })
    }

    /// The regular file in a tree with this inode number.
    pub(super) fn numbered(&self, number: u64) -> Option<File> {
        let found = self.forest.getattr(number).ok().filter(|found| found.kind == InodeKind::Regular)?;
        let place = Place::Tree(number);
        Some(File { place, size: found.size, executable: true, path: None })
    }

    fn attributes(&self, root: u64, path: &[u8]) -> Option<Attributes> {
        let mut found = self.forest.getattr(root).ok()?;
        for name in components(path) {
            if name == STATE_DIRECTORY {
                // What is there is ours, and made anew for everybody who looks.
                return None;
            }
            found = self.forest.lookup(found.number, name).ok()?;
        }
        Some(found)
    }

    fn names_in_tree(&self, root: u64, path: &[u8]) -> Option<Vec<Vec<u8>>> {
        let directory = self.attributes(root, path)?.number;
        let mut names = Vec::new();
        let full = |name: &[u8], found: &Attributes| {
            let takes = names.len() < MAX_NAMES;
            if takes {
                // As the kernel does with what it was given.
                self.forest.forget(found.number);
                names.push(name.to_vec());
            }
            !takes
        };
        self.forest.list(directory, 0, full).ok()?;
        Some(names)
    }

    fn in_tree(&self, root: u64, path: &[u8]) -> Option<Node> {
        let found = self.attributes(root, path)?;
        match found.kind {
            InodeKind::Directory => Some(Node::Directory),
            InodeKind::Symlink => self.forest.readlink(found.number).ok().map(Node::Link),
            InodeKind::Regular => Some(Node::File(File {
                place: Place::Tree(found.number),
                size: found.size,
                executable: found.mode & 0o111 != 0,
                path: None,
            })),
            _ => None,
        }
    }

    /// The bytes of a file.
    pub(super) fn content(&self, file: &File) -> FileContent {
        match &file.place {
            Place::Tree(number) => match self.forest.content(*number) {
                Some((layer, entry)) => FileContent::Lazy { layer, entry, size: file.size },
                None => FileContent::None,
            },
            Place::Directory(part, path) => match self.parts.get(*part) {
                Some(RootPart::Directory(directory)) => {
                    open(directory, path, OFlags::RDONLY | OFlags::NONBLOCK)
                        .map_or(FileContent::None, FileContent::Local)
                }
                _ => FileContent::None,
            },
        }
    }

    /// Where the dynamic linker would look for a library: in the directories that the program names, those of the
    /// environment, and the usual ones.
    pub(super) fn libraries(
        &self,
        name: &[u8],
        search: &[Vec<u8>],
        origin: Option<&[u8]>,
        command: &Command,
    ) -> impl Iterator<Item = Vec<u8>> + use<> {
        let mut places = Vec::new();
        if name.contains(&b'/') {
            places.push(command.absolute(name));
        } else {
            let named = search.iter().filter_map(|directory| with_origin(directory, origin));
            let environment = command.variable("LD_LIBRARY_PATH").unwrap_or_default().split(':');
            let environment = environment.map(|directory| directory.as_bytes().to_vec());
            let usual = USUAL_LIBRARIES.iter().flat_map(|directory| {
                let inside = ARCHITECTURES.iter().map(move |name| format!("{directory}/{name}").into_bytes());
                inside.chain([directory.as_bytes().to_vec()])
            });
            let named = named.take(MAX_DIRECTORIES).chain(environment.take(MAX_DIRECTORIES));
            let all = named.chain(usual).filter(|directory| directory.starts_with(b"/"));
            places.extend(all.map(|directory| [&directory[..], b"/", name].concat()));
        }
        places.into_iter()
    }
}

impl FileContent {
    /// Reads a range, and waits for what has to be fetched of it. `None` if it cannot be had.
    pub(super) async fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        match self {
            Self::Lazy { layer, entry, size } => {
                let range = range.start.min(*size)..range.end.min(*size);
                layer.discover(*entry, range.clone()).await.ok()?;
                let mut bytes = vec![0; usize::try_from(range.end.saturating_sub(range.start)).ok()?];
                // Evicted again: the cache has better things to keep.
                layer.peek(*entry, range.start, &mut bytes).ok()??;
                Some(bytes)
            }
            Self::Local(file) => {
                let size = file.metadata().ok()?.len();
                let range = range.start.min(size)..range.end.min(size);
                let mut bytes = vec![0; usize::try_from(range.end.saturating_sub(range.start)).ok()?];
                file.read_exact_at(&mut bytes, range.start).ok()?;
                Some(bytes)
            }
            Self::None => None,
        }
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// A directory of a search path; those beside the program are unknown if it was not found by its path.
fn with_origin(directory: &[u8], origin: Option<&[u8]>) -> Option<Vec<u8>> {
    for variable in [&b"$ORIGIN"[..], b"${ORIGIN}"] {
        if let Some(rest) = directory.strip_prefix(variable) {
            return Some([origin?, rest].concat());
        }
    }
    Some(directory.to_vec())
}

/// Opens what stands at a path in a directory. No link is followed: the image made them.
fn open(directory: &std::path::Path, path: &[u8], flags: OFlags) -> Option<std::fs::File> {
    let base = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let base = rustix::fs::open(directory, base, Mode::empty()).ok()?;
    let path: Vec<u8> = components(path).collect::<Vec<_>>().join(&b'/');
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = if path.is_empty() { b".".to_vec() } else { path };
    rustix::fs::openat2(base, path.as_slice(), flags, Mode::empty(), resolve).ok().map(std::fs::File::from)
}

fn names_on_disk(directory: &std::path::Path, path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let directory = open(directory, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let entries = rustix::fs::Dir::new(directory).ok()?.take(MAX_NAMES).filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_bytes().to_vec());
    Some(names.filter(|name| ![&b"."[..], b".."].contains(&&name[..])).collect())
}

fn on_disk(part: usize, directory: &std::path::Path, path: &[u8]) -> Option<Node> {
    // The last name may be a link, which O_PATH with O_NOFOLLOW opens itself; RESOLVE_NO_SYMLINKS would refuse it.
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[][..], path),
    };
    let parent = open(directory, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(&parent, name, flags, Mode::empty()).ok()?;
    let found = std::fs::File::from(found);
    let metadata = found.metadata().ok()?;
    if metadata.file_type().is_symlink() {
        let target = rustix::fs::readlinkat(&parent, name, Vec::new()).ok()?;
        return Some(Node::Link(target.into_bytes()));
    }
    if metadata.is_dir() {
        return Some(Node::Directory);
    }
    metadata.is_file().then(|| {
        Node::File(File {
            place: Place::Directory(part, path.to_vec()),
            size: metadata.len(),
            executable: metadata.mode() & 0o111 != 0,
            path: None,
        })
    })
}
