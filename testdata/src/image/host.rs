//! Layers made of files of this machine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::compress::Compression;
use super::content::Content;
use super::entry::{Entry, Kind};
use super::layer::{Layer, LayerBuilder};

/// A layer of everything in a directory, which becomes the root. Owners become 0:0, extended attributes are left out.
///
/// # Panics
/// If the directory cannot be read.
pub fn from_dir(dir: impl AsRef<Path>) -> Layer {
    let mut files = HostFiles::under(dir.as_ref());
    files.tree("/");
    files.layer(Compression::GZIP)
}

/// A layer of files, and directories with all they contain, at the places they have on this machine.
///
/// # Panics
/// If one cannot be read.
pub fn from_paths(paths: &[impl AsRef<Path>]) -> Layer {
    let mut files = HostFiles::new();
    for path in paths {
        files.tree(path);
    }
    files.layer(Compression::GZIP)
}

/// Collects files of this machine for a layer. Symbolic links on the way to a file come along, and so does what they lead
/// to: `/bin/sh` brings the link `/bin`, the link `/usr/bin/sh` and `/usr/bin/dash`.
#[derive(Debug, Clone, Default)]
pub struct HostFiles {
    /// What stands for `/`.
    root: PathBuf,
    /// Path below the root → metadata of the path itself.
    found: BTreeMap<PathBuf, fs::Metadata>,
}

impl HostFiles {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::under(Path::new("/"))
    }

    /// Nothing yet, from a directory that stands for `/`.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_path_buf(), found: BTreeMap::new() }
    }

    /// Adds one file, link or directory (without what is in it).
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn path(&mut self, path: impl AsRef<Path>) -> &mut Self {
        let mut todo: VecDeque<OsString> = names(path.as_ref());
        let mut at = PathBuf::new();
        // As the kernel does it, and with its limit.
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let here = at.join(&name);
            let metadata = fs::symlink_metadata(self.root.join(&here))
                .unwrap_or_else(|e| panic!("{} of {}: {e}", here.display(), path.as_ref().display()));
            if metadata.is_symlink() {
                links += 1;
                assert!(links <= 40, "too many links: {}", path.as_ref().display());
                let target = fs::read_link(self.root.join(&here)).expect("link");
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                // A link may lead nowhere (or out of here) as the last component; then the link is all there is.
                let resolved = if target.is_absolute() { target.clone() } else { at.join(&target) };
                let resolved = resolved.strip_prefix("/").unwrap_or(&resolved).to_path_buf();
                if !todo.is_empty() || self.root.join(resolved).exists() {
                    names(&target).into_iter().rev().for_each(|name| todo.push_front(name));
                }
            } else {
                at = here.clone();
            }
            self.found.insert(here, metadata);
        }
        self
    }

    /// Adds a file, or a directory with all it contains.
    ///
    /// # Panics
    /// If something cannot be read.
    pub fn tree(&mut self, path: impl AsRef<Path>) -> &mut Self {
        let mut todo = vec![path.as_ref().to_path_buf()];
        while let Some(path) = todo.pop() {
            self.path(&path);
            let below = path.strip_prefix("/").unwrap_or(&path);
            let on_host = self.root.join(below);
            // Not through a link, or a link to a parent would never end.
            if fs::symlink_metadata(&on_host).is_ok_and(|m| m.is_dir()) {
                let listing = fs::read_dir(&on_host).unwrap_or_else(|e| panic!("{}: {e}", on_host.display()));
                todo.extend(listing.map(|entry| path.join(entry.expect("directory entry").file_name())));
            }
        }
        self
    }

    /// Adds a program and the shared libraries it needs, as `ldd` finds them.
    ///
    /// # Panics
    /// If the program or a library is not there. A static program is fine.
    pub fn binary(&mut self, path: impl AsRef<Path>) -> &mut Self {
        let path = path.as_ref();
        self.path(path);
        for library in shared_libraries(path) {
            self.path(library);
        }
        self
    }

    /// Makes the layer, in the order of paths. Modes, times and hard links are those of this machine.
    ///
    /// # Panics
    /// If a file cannot be read.
    pub fn layer(&self, compression: Compression) -> Layer {
        self.write(LayerBuilder::new(compression))
    }

    /// As [`layer`](Self::layer), into a file.
    ///
    /// # Panics
    /// If a file cannot be read or written.
    pub fn layer_to(&self, file: impl AsRef<Path>, compression: Compression) -> Layer {
        self.write(LayerBuilder::to_file(file, compression))
    }

    fn write(&self, mut layer: LayerBuilder) -> Layer {
        let mut names: HashMap<(u64, u64), &Path> = HashMap::new();
        for (path, metadata) in &self.found {
            let kind = metadata.file_type();
            let name = path.as_os_str().as_bytes();
            let inode = (metadata.dev(), metadata.ino());
            let entry = if let Some(first) = names.get(&inode) {
                Entry::hard_link(name, first.as_os_str().as_bytes())
            } else if kind.is_dir() {
                Entry::dir(name)
            } else if kind.is_symlink() {
                let target = fs::read_link(self.root.join(path)).expect("link");
                Entry::symlink(name, target.as_os_str().as_bytes())
            } else if kind.is_file() {
                let content = Content::File { path: self.root.join(path), len: metadata.len() };
                Entry::new(name, Kind::File(content))
            } else if kind.is_fifo() {
                Entry::fifo(name)
            } else {
                // Sockets have no place in a tar, and devices of this machine none in an image.
                continue;
            };
            if metadata.nlink() > 1 && kind.is_file() {
                names.entry(inode).or_insert(path);
            }
            let nanos = u32::try_from(metadata.mtime_nsec()).expect("nanoseconds");
            layer.add(entry.mode(metadata.mode() & 0o7777).mtime(metadata.mtime(), nanos));
        }
        layer.finish()
    }
}

/// The components of a path that mean something, `..` included.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// The shared libraries (and the loader) of a program, as `ldd` prints them.
fn shared_libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("not found"), "a library of {} is missing:\n{text}", program.display());
    // `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, `linux-vdso.so.1 (0x…)`, `statically linked`.
    let library = |line: &str| {
        let found = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
        let path = found.split(" (").next().unwrap_or_default();
        path.starts_with('/').then(|| PathBuf::from(OsString::from_vec(path.as_bytes().to_vec())))
    };
    text.lines().filter_map(library).collect()
}
