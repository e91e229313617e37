//! A merged tree.

use std::collections::BTreeMap;
use std::ops::Bound;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeType {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// A file, directory, link or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub node_type: NodeType,
    /// Permission bits with setuid, setgid and sticky: 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of a file, length of a link's target, 0 otherwise.
    pub size: u64,
    /// Seconds since 1970, and nanoseconds on top.
    pub mtime: (i64, u32),
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Digest of a file's content.
    pub digest: Option<String>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Nodes with the same number are the same inode. The numbers mean nothing else; directories have 0.
    pub inode: u64,
    /// Which layer it comes from, counted from 0; `None` for a directory that no layer has an entry for.
    pub layer: Option<usize>,
}

impl Node {
    /// A directory that nothing describes.
    pub(super) fn implied_dir() -> Self {
        Self {
            node_type: NodeType::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            target: None,
            xattrs: BTreeMap::new(),
            digest: None,
            device: None,
            inode: 0,
            layer: None,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.node_type == NodeType::Dir
    }
}

/// Nodes by path. Paths have no slash at either end; the root is the empty path and always there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(pub BTreeMap<Vec<u8>, Node>);

impl Tree {
    /// The node at a path.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<&Node> {
        self.0.get(path.as_ref())
    }

    /// All paths in ascending order, lossily as text.
    pub fn paths(&self) -> Vec<String> {
        self.0.keys().map(|p| String::from_utf8_lossy(p).into_owned()).collect()
    }

    /// The names in a directory, in ascending order.
    pub fn children(&self, path: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
        let prefix = prefix(path.as_ref());
        let below = self.range(path.as_ref()).map(|(p, _)| &p[prefix.len()..]);
        below.filter(|rest| !rest.contains(&b'/')).map(<[u8]>::to_vec).collect()
    }

    /// How many names the inode of a node has; 1 for directories.
    pub fn links(&self, path: impl AsRef<[u8]>) -> usize {
        match self.get(path) {
            None => 0,
            Some(node) if node.is_dir() => 1,
            Some(node) => self.0.values().filter(|n| n.inode == node.inode).count(),
        }
    }

    /// The groups of paths that are hard links of each other, with two members at least, in order.
    pub fn hard_links(&self) -> Vec<Vec<Vec<u8>>> {
        let mut groups: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, node) in self.0.iter().filter(|(_, n)| !n.is_dir()) {
            groups.entry(node.inode).or_default().push(path.clone());
        }
        let mut groups: Vec<_> = groups.into_values().filter(|g| g.len() > 1).collect();
        groups.sort();
        groups
    }

    /// Everything below a path, without the path itself.
    fn range(&self, path: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Node)> {
        let prefix = prefix(path);
        let start = Bound::Excluded(prefix.clone());
        self.0.range((start, Bound::Unbounded)).take_while(move |(p, _)| p.starts_with(&prefix))
    }

    /// Removes everything below a path.
    pub(super) fn remove_below(&mut self, path: &[u8]) {
        let doomed: Vec<Vec<u8>> = self.range(path).map(|(p, _)| p.clone()).collect();
        for path in doomed {
            self.0.remove(&path);
        }
    }

    /// Removes a path and everything below it.
    pub(super) fn remove_all(&mut self, path: &[u8]) {
        self.remove_below(path);
        if !path.is_empty() {
            self.0.remove(path);
        }
    }
}

fn prefix(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { Vec::new() } else { [path, b"/"].concat() }
}

/// The directory that a path is in.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(b"", |at| &path[..at])
}
