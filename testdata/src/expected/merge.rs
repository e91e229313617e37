//! Merging.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Node, NodeType, Tree, parent};
use crate::image::{Entry, Kind, Layer};

/// Merges layers, lowest first.
///
/// # Panics
/// If a layer was built without a record of its entries, or a file of this machine that it was built from is gone.
pub fn merge(layers: &[Layer]) -> Tree {
    let empty_tar = 1024;
    let recorded = |l: &Layer| !l.entries.is_empty() || l.uncompressed_size <= empty_tar;
    assert!(layers.iter().all(recorded), "a layer has no record of its entries");
    merge_entries(layers.iter().map(|l| l.entries.as_slice()))
}

/// As [`merge`], for layers given as their entries.
pub fn merge_entries<'a>(layers: impl IntoIterator<Item = &'a [Entry]>) -> Tree {
    let mut merged = Tree::default();
    merged.0.insert(Vec::new(), Node::implied_dir());
    let mut inodes = 0;
    for (number, entries) in layers.into_iter().enumerate() {
        let one = One::read(entries, number, &merged, &mut inodes);
        one.apply(&mut merged);
    }
    merged
}

/// One layer by itself.
#[derive(Default)]
struct One {
    tree: Tree,
    /// Directories that the layer only implies.
    implied: BTreeSet<Vec<u8>>,
    /// Paths below to hide.
    whiteouts: Vec<Vec<u8>>,
    /// Directories below to empty.
    opaque: Vec<Vec<u8>>,
}

impl One {
    fn read(entries: &[Entry], layer: usize, below: &Tree, inodes: &mut u64) -> Self {
        let mut one = Self::default();
        for entry in entries {
            // Typeflag 7 is a regular file to all who do not know it; others describe no file.
            if matches!(entry.kind, Kind::Global)
                || matches!(entry.kind, Kind::Other(flag, _) if flag != b'7')
            {
                continue;
            }
            let path = clean(&entry.path);
            let name = &path[path.len() - path.rsplit(|b| *b == b'/').next().map_or(0, <[u8]>::len)..];
            if name == b".wh..wh..opq" {
                one.imply(parent(&path));
                one.opaque.push(parent(&path).to_vec());
            } else if name.starts_with(b".wh..wh.") || matches!(name, b".wh." | b".wh.." | b".wh...") {
                one.imply_parent(&path);
            } else if let Some(hidden) = name.strip_prefix(b".wh.") {
                one.imply_parent(&path);
                let dir = parent(&path);
                let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
                one.whiteouts.push([dir, slash, hidden].concat());
            } else if matches!(entry.kind, Kind::Char(0, 0)) {
                // The root is a directory whatever a layer says.
                if path.is_empty() {
                    continue;
                }
                one.imply_parent(&path);
                one.remove(&path);
                one.whiteouts.push(path);
            } else if let Some(node) = one.node(entry, layer, below, inodes) {
                one.insert(&path, node);
            }
        }
        one
    }

    fn node(&self, entry: &Entry, layer: usize, below: &Tree, inodes: &mut u64) -> Option<Node> {
        let mut node = Node {
            // Linux gives every symbolic link this mode, whatever a tar header says.
            mode: if matches!(entry.kind, Kind::Symlink(_)) { 0o777 } else { entry.mode & 0o7777 },
            uid: entry.uid & 0xffff_ffff,
            gid: entry.gid & 0xffff_ffff,
            mtime: (entry.mtime, entry.mtime_nanos),
            xattrs: xattrs(entry),
            layer: Some(layer),
            ..Node::implied_dir()
        };
        node.node_type = match &entry.kind {
            Kind::HardLink(target) => {
                let target = clean(target);
                // What is to be a directory above the link is no file that it could name.
                if clean(&entry.path).starts_with(&[&target[..], b"/"].concat()) {
                    return None;
                }
                let found = self.tree.get(&target).or_else(|| below.get(&target));
                return found.filter(|n| !n.is_dir()).cloned();
            }
            Kind::File(content) | Kind::Other(_, content) => {
                node.size = content.len();
                node.digest = Some(content.digest());
                NodeType::File
            }
            Kind::Symlink(target) => {
                node.size = target.len() as u64;
                node.target = Some(target.clone());
                NodeType::Symlink
            }
            Kind::Char(major, minor) => {
                node.device = Some((*major, *minor));
                NodeType::Char
            }
            Kind::Block(major, minor) => {
                node.device = Some((*major, *minor));
                NodeType::Block
            }
            Kind::Fifo => NodeType::Fifo,
            Kind::Dir | Kind::Global => return Some(node),
        };
        *inodes += 1;
        node.inode = *inodes;
        Some(node)
    }

    fn insert(&mut self, path: &[u8], node: Node) {
        self.imply_parent(path);
        let was_dir = self.tree.get(path).is_none_or(Node::is_dir);
        if !(was_dir && node.is_dir()) {
            if path.is_empty() {
                // The root is a directory whatever a layer says.
                return;
            }
            self.remove(path);
        }
        self.implied.remove(path);
        self.tree.0.insert(path.to_vec(), node);
    }

    fn imply_parent(&mut self, path: &[u8]) {
        if !path.is_empty() {
            self.imply(parent(path));
        }
    }

    /// Makes sure that a directory exists in the layer.
    fn imply(&mut self, path: &[u8]) {
        if self.tree.get(path).is_some_and(Node::is_dir) {
            return;
        }
        self.imply_parent(path);
        self.remove(path);
        self.tree.0.insert(path.to_vec(), Node::implied_dir());
        self.implied.insert(path.to_vec());
    }

    /// Removes what the layer has at a path. What stood in a directory goes with it, its whiteouts and markers too.
    fn remove(&mut self, path: &[u8]) {
        self.tree.remove_all(path);
        let below = [path, b"/"].concat();
        self.whiteouts.retain(|hidden| !hidden.starts_with(&below));
        self.opaque.retain(|dir| dir != path && !dir.starts_with(&below));
        self.implied.retain(|dir| dir != path && !dir.starts_with(&below));
    }

    fn apply(self, merged: &mut Tree) {
        for path in &self.whiteouts {
            merged.remove_all(path);
        }
        for path in &self.opaque {
            merged.remove_below(path);
        }
        // Ascending order: parents come before what is in them.
        for (path, node) in self.tree.0 {
            let over_dir = merged.get(&path).is_some_and(Node::is_dir);
            if over_dir && self.implied.contains(&path) {
                continue;
            }
            if !(over_dir && node.is_dir()) {
                merged.remove_all(&path);
            }
            merged.0.insert(path, node);
        }
    }
}

/// The extended attributes that the tree shows.
fn xattrs(entry: &Entry) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = entry.xattrs.clone();
    for (key, value) in &entry.pax {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            all.insert(name.to_vec(), value.clone());
        }
    }
    all.retain(|name, _| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay."));
    all
}

/// A name from a tar as a path below the root.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}
