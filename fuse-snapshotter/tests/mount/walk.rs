//! A whole directory tree, attribute by attribute.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use testdata::digest::sha256;
use testdata::expected::{Node, NodeType, Tree};

/// Reads everything below a directory with the system's own calls. Inode numbers stand for hard links only.
pub(crate) fn walk(root: &Path) -> Tree {
    let mut nodes = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let full = if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&path)) };
        let node = node(&full);
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

fn node(path: &Path) -> Node {
    let metadata = std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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
        .then(|| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    if let Some(content) = &content {
        assert_eq!(content.len() as u64, metadata.size(), "{}", path.display());
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
        digest: content.map(|content| sha256(&content)),
        device: is_device.then(|| (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))),
        inode: if node_type == NodeType::Dir { 0 } else { metadata.ino() },
        layer: None,
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
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

/// Compares two trees; the error names the first differences.
pub(crate) fn compare(found: &Tree, expected: &Tree) -> Result<(), String> {
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
                if found.links(path) != expected.links(path) {
                    differences.push(format!("{}: other hard links", text(path)));
                }
            }
        }
    }
    let unexpected = found.0.keys().filter(|path| !expected.0.contains_key(*path));
    differences.extend(unexpected.map(|path| format!("{} should not be there", text(path))));
    if found.hard_links() != expected.hard_links() {
        differences.push("hard links differ".into());
    }
    if differences.is_empty() { Ok(()) } else { Err(differences[..differences.len().min(10)].join("\n")) }
}

fn comparable(node: &Node) -> Node {
    Node { inode: 0, layer: None, ..node.clone() }
}
