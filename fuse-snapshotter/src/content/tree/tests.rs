//! The tree against the merge rules (`docs/semantics.md`), against the oracle of `testdata`, and against overlayfs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

mod hostile;
mod ids;
mod overlay;
pub(crate) mod random;
mod rules;

use std::collections::BTreeMap;

use testdata::expected::{self, NodeType};
use testdata::image::{Compression, Entry, Layer, LayerBuilder};
use ztoc::{BuildOptions, Builder, Ztoc};

use super::{Below, InodeId, InodeIndex, InodeKind, Tree, TreeError};

fn layer(entries: &[Entry]) -> Layer {
    let mut builder = LayerBuilder::new(Compression::None);
    for entry in entries {
        builder.add(entry.clone());
    }
    builder.finish()
}

fn ztoc(entries: &[Entry]) -> Ztoc {
    let mut builder = Builder::new(BuildOptions::new(ztoc::Compression::Uncompressed)).unwrap();
    builder.push(layer(entries).bytes()).unwrap();
    Ztoc::parse(builder.finish().unwrap().bytes).unwrap()
}

fn merge_below(layers: &[Vec<Entry>], below: Below) -> Result<Tree, TreeError> {
    let ztocs: Vec<_> = layers.iter().map(|entries| ztoc(entries)).collect();
    Tree::merge(&ztocs.iter().collect::<Vec<_>>(), below)
}

fn merge(layers: &[Vec<Entry>]) -> Tree {
    merge_below(layers, Below::Nothing).unwrap()
}

/// All paths, without a slash at either end; the root is empty.
fn walk(tree: &Tree) -> BTreeMap<Vec<u8>, InodeIndex> {
    let mut all = BTreeMap::new();
    let mut directories = vec![(Vec::new(), tree.root())];
    all.insert(Vec::new(), tree.root());
    while let Some((path, directory)) = directories.pop() {
        for (name, child) in tree.children(directory, 0) {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let path = [&path[..], slash, name].concat();
            assert_eq!(tree.lookup(directory, name), Some(child));
            if tree.inode(child).kind == InodeKind::Directory {
                directories.push((path.clone(), child));
            }
            assert!(all.insert(path, child).is_none());
        }
    }
    all
}

fn paths(tree: &Tree) -> Vec<String> {
    // Without the root.
    walk(tree).into_keys().skip(1).map(|path| String::from_utf8(path).unwrap()).collect()
}

fn node_type(kind: InodeKind) -> NodeType {
    match kind {
        InodeKind::Directory => NodeType::Dir,
        InodeKind::Regular => NodeType::File,
        InodeKind::Symlink => NodeType::Symlink,
        InodeKind::Char => NodeType::Char,
        InodeKind::Block => NodeType::Block,
        InodeKind::Fifo => NodeType::Fifo,
    }
}

/// Compares everything that the oracle knows of.
fn assert_same(tree: &Tree, expected: &expected::Tree) {
    let found = walk(tree);
    let names = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    assert_eq!(found.keys().map(names).collect::<Vec<_>>(), expected.paths());
    let mut groups: BTreeMap<InodeIndex, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, index) in &found {
        let (inode, node) = (tree.inode(*index), expected.get(path).unwrap());
        let at = names(path);
        assert_eq!(node_type(inode.kind), node.node_type, "{at}");
        assert_eq!(u32::from(inode.mode), node.mode, "{at}");
        assert_eq!((u64::from(inode.uid), u64::from(inode.gid)), (node.uid, node.gid), "{at}");
        assert_eq!((inode.mtime.seconds, inode.mtime.nanos), node.mtime, "{at}");
        assert_eq!(inode.device, node.device.unwrap_or((0, 0)), "{at}");
        assert_eq!(tree.link_target(*index), node.target.clone().unwrap_or_default(), "{at}");
        let xattrs: Vec<_> =
            tree.xattrs(*index).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(xattrs, node.xattrs.clone().into_iter().collect::<Vec<_>>(), "{at}");
        if inode.kind == InodeKind::Directory {
            let is_directory = |name: &Vec<u8>| {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                expected.get([&path[..], slash, name].concat()).unwrap().node_type == NodeType::Dir
            };
            let directories = expected.children(path).iter().filter(|name| is_directory(name)).count();
            assert_eq!(inode.links as usize, 2 + directories, "{at}");
        } else {
            assert_eq!(inode.size, node.size, "{at}");
            assert_eq!(inode.links as usize, expected.links(path), "{at}");
            if let InodeId::File(file) = inode.id() {
                assert_eq!(Some(usize::from(file.layer)), node.layer, "{at}");
            }
            groups.entry(*index).or_default().push(path.clone());
        }
    }
    let mut links: Vec<_> = groups.into_values().filter(|group| group.len() > 1).collect();
    links.sort();
    assert_eq!(links, expected.hard_links());
}
