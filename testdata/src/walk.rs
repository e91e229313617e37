//! A whole directory tree of this machine, attribute by attribute, to compare one with another or with
//! [`expected`](crate::expected).
//!
//! [`walk`] reads what a [`Tree`] says; [`View`] has besides what only a mounted tree has: on which devices its files
//! are, and how many links the kernel counts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::digest::sha256_file;
use crate::expected::{Node, NodeType, Tree};

/// What a mounted tree is like.
#[derive(Debug, Clone)]
pub struct View {
    /// Everything that a tree says.
    pub tree: Tree,
    /// `st_dev` of everything in it, with the first path that has it.
    pub devices: BTreeMap<u64, Vec<u8>>,
    /// `st_nlink` of everything but directories.
    pub links: BTreeMap<Vec<u8>, u64>,
}

impl View {
    /// Reads everything below a directory.
    ///
    /// # Panics
    /// If something cannot be read, or readdir and lstat do not agree.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let mut view = Self { tree: Tree::default(), devices: BTreeMap::new(), links: BTreeMap::new() };
        view.tree = read(root, &mut |path, metadata| {
            view.devices.entry(metadata.dev()).or_insert_with(|| path.to_vec());
            if !metadata.is_dir() {
                view.links.insert(path.to_vec(), metadata.nlink());
            }
        });
        view
    }

    /// That the tree is on one device, as `find -xdev` and `du -x` need it; the error names a path on each.
    pub fn check_one_device(&self) -> Result<(), String> {
        if self.devices.len() == 1 {
            return Ok(());
        }
        let list = self.devices.iter().map(|(device, path)| format!("{device:#x}: /{}", path.escape_ascii()));
        Err(format!("{} devices:\n{}", self.devices.len(), list.collect::<Vec<_>>().join("\n")))
    }

    /// That the kernel counts as many links of each file as it has names in the tree; the error names the first that
    /// differ. Names that an upper layer hides still count in overlayfs, so this is for a tree by itself.
    pub fn check_links(&self) -> Result<(), String> {
        let mut names: BTreeMap<u64, u64> = BTreeMap::new();
        for node in self.tree.0.values().filter(|node| node.node_type != NodeType::Dir) {
            *names.entry(node.inode).or_default() += 1;
        }
        let wrong = self.links.iter().filter_map(|(path, links)| {
            let counted = self.tree.get(path).and_then(|node| names.get(&node.inode))?;
            (counted != links).then(|| format!("{}: {links} links, {counted} names", path.escape_ascii()))
        });
        let wrong: Vec<_> = wrong.take(10).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

/// Reads everything below a directory with the system's own calls. Inode numbers stand for hard links only.
///
/// # Panics
/// If something cannot be read, or readdir and lstat do not agree.
#[must_use]
pub fn walk(root: &Path) -> Tree {
    read(root, &mut |_, _| {})
}

fn read(root: &Path, see: &mut dyn FnMut(&[u8], &Metadata)) -> Tree {
    let mut nodes = BTreeMap::new();
    // Numbers of their own, because an inode number is unique on its device only.
    let mut inodes = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let full = if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&path)) };
        let metadata = std::fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
        see(&path, &metadata);
        let mut node = node(&full, &metadata);
        if node.node_type != NodeType::Dir {
            let next = inodes.len() as u64 + 1;
            node.inode = *inodes.entry((metadata.dev(), metadata.ino())).or_insert(next);
        }
        if node.node_type == NodeType::Dir {
            let mut names = std::collections::BTreeSet::new();
            for entry in std::fs::read_dir(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display())) {
                let entry = entry.unwrap();
                // What readdir says must be what lstat says.
                let kind = entry.file_type().unwrap();
                assert_eq!(kind, std::fs::symlink_metadata(entry.path()).unwrap().file_type());
                assert!(
                    names.insert(entry.file_name()),
                    "{} twice in {}",
                    entry.path().display(),
                    full.display()
                );
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                pending.push([&path, separator, entry.file_name().as_bytes()].concat());
            }
        }
        nodes.insert(path, node);
    }
    Tree(nodes)
}

fn node(path: &Path, metadata: &Metadata) -> Node {
    let node_type = match metadata.mode() & 0o170_000 {
        0o040_000 => NodeType::Dir,
        0o100_000 => NodeType::File,
        0o120_000 => NodeType::Symlink,
        0o020_000 => NodeType::Char,
        0o060_000 => NodeType::Block,
        0o010_000 => NodeType::Fifo,
        other => panic!("{}: type {other:o}", path.display()),
    };
    let is_device = matches!(node_type, NodeType::Char | NodeType::Block);
    let content = (node_type == NodeType::File)
        .then(|| sha256_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    if let Some((_, size)) = &content {
        assert_eq!(*size, metadata.size(), "{}", path.display());
    }
    Node {
        node_type,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid().into(),
        gid: metadata.gid().into(),
        size: if matches!(node_type, NodeType::File | NodeType::Symlink) { metadata.size() } else { 0 },
        mtime: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap()),
        target: (node_type == NodeType::Symlink)
            .then(|| std::fs::read_link(path).unwrap().into_os_string().into_vec()),
        xattrs: xattrs(path),
        digest: content.map(|(digest, _)| digest),
        device: is_device.then(|| (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))),
        inode: 0,
        layer: None,
    }
}

/// The extended attributes of a file, not following links.
///
/// # Panics
/// If they cannot be read.
#[must_use]
pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value)
            .unwrap_or_else(|e| panic!("{}: {}: {e}", path.display(), name.escape_ascii()));
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    found
}

/// Compares two trees in everything but inode numbers, of which only hard links count; the error names the first
/// differences.
pub fn compare(found: &Tree, expected: &Tree) -> Result<(), String> {
    let mut differences = Vec::new();
    let text = |path: &[u8]| path.escape_ascii().to_string();
    for (path, wanted) in &expected.0 {
        match found.0.get(path) {
            None => differences.push(format!("{} is missing", text(path))),
            Some(node) => {
                let (a, b) = (comparable(node), comparable(wanted));
                // A directory that no layer has an entry for has no time of its own.
                let implied = wanted.node_type == NodeType::Dir && wanted.mtime == (0, 0);
                if a != b && !(implied && Node { mtime: (0, 0), ..a.clone() } == b) {
                    differences.push(format!("{}:\n  found    {a:?}\n  expected {b:?}", text(path)));
                }
            }
        }
    }
    let unexpected = found.0.keys().filter(|path| !expected.0.contains_key(*path));
    differences.extend(unexpected.map(|path| format!("{} should not be there", text(path))));
    let (links, wanted) = (found.hard_links(), expected.hard_links());
    let group = |group: &Vec<Vec<u8>>| group.iter().map(|path| text(path)).collect::<Vec<_>>().join(", ");
    differences
        .extend(wanted.iter().filter(|g| !links.contains(g)).map(|g| format!("not linked: {}", group(g))));
    differences.extend(links.iter().filter(|g| !wanted.contains(g)).map(|g| format!("linked: {}", group(g))));
    if differences.is_empty() { Ok(()) } else { Err(differences[..differences.len().min(10)].join("\n")) }
}

fn comparable(node: &Node) -> Node {
    Node { inode: 0, layer: None, ..node.clone() }
}
