//! Tables of contents of anybody, merged into the tree of an image.
//!
//! The input is entries: a byte that says what each is and in which layer, its attributes (a byte), and its name and the
//! target of a link, each with its length before it. A length of 255 repeats the byte that follows.
#![no_main]

use fuse_snapshotter::content::tree::{Below, InodeKind, OverlayNamespace, Tree};
use libfuzzer_sys::fuzz_target;
use testdata::seeds;
use ztoc::fuzzing::Parts;
use ztoc::{Compression, Entry, EntryKind, Timestamp, Ztoc};

/// Layers of the image.
const LAYERS: usize = 3;
/// Length of a name of which the input has one byte.
const LONG: usize = 1000;

const KINDS: [EntryKind; 8] = [
    EntryKind::Regular,
    EntryKind::Directory,
    EntryKind::Symlink,
    EntryKind::Hardlink,
    EntryKind::Char,
    EntryKind::Block,
    EntryKind::Fifo,
    EntryKind::Directory,
];

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(self.byte()?);
        if length == 255 {
            return Some(vec![self.byte()?; LONG]);
        }
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text.to_vec())
    }

    fn entry(&mut self, offset: &mut [u64; LAYERS]) -> Option<(usize, Entry)> {
        let (what, attributes) = (self.byte()?, self.byte()?);
        let layer = usize::from(what >> 3) % LAYERS;
        let kind = KINDS[usize::from(what & 7)];
        let (name, link_name) = (self.text()?, self.text()?);
        let size = if kind == EntryKind::Regular { u64::from(attributes) * 100 } else { 0 };
        offset[layer] += 512;
        let at = offset[layer];
        offset[layer] = (at + size).next_multiple_of(512);
        let xattr = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        Some((
            layer,
            Entry {
                kind,
                offset: at,
                size,
                mode: i64::from(attributes) << 4,
                uid: 0,
                gid: 0,
                uname: Vec::new(),
                gname: Vec::new(),
                mtime: Timestamp::ZERO,
                devmajor: i64::from(attributes & 1),
                devminor: 0,
                pax: match attributes >> 6 {
                    0 => Vec::new(),
                    1 => vec![xattr(b"SCHILY.xattr.trusted.overlay.opaque", b"y")],
                    2 => vec![xattr(b"SCHILY.xattr.user.", b""), xattr(b"SCHILY.xattr.user.a", &link_name)],
                    _ => vec![xattr(b"SCHILY.xattr.", &name), xattr(b"path", b"x")],
                },
                name,
                link_name,
            },
        ))
    }
}

fn layers(data: &[u8]) -> Option<Vec<Ztoc>> {
    let mut input = Input(data);
    let (mut offset, mut entries) = ([0; LAYERS], [const { Vec::new() }; LAYERS]);
    while let Some((layer, entry)) = input.entry(&mut offset) {
        entries[layer].push(entry);
    }
    let parse = |(entries, size): (&Vec<Entry>, u64)| {
        let size = size + 1024;
        // One span: version 1, one checkpoint, its span size, at 0 and 0.
        let mut zinfo = [1u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
        for number in [size, 0, 0] {
            zinfo.extend(number.to_le_bytes());
        }
        let parts = Parts {
            compression: Compression::Zstd,
            compressed_size: size,
            uncompressed_size: size,
            entries,
            zinfo: &zinfo,
            spans: 1,
        };
        Some(Ztoc::parse(parts.serialise()?).expect("such a zTOC is well-formed"))
    };
    entries.iter().zip(offset).map(parse).collect()
}

/// Every directory is listed in order, every name is found, and every inode is reached.
fn check(tree: &Tree) {
    let mut reached = vec![false; tree.len()];
    let mut pending = vec![tree.root()];
    while let Some(directory) = pending.pop() {
        reached[directory.position()] = true;
        let names: Vec<_> = tree.children(directory, 0).collect();
        assert!(
            names.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "names are sorted, and each is there once"
        );
        for (name, child) in names {
            assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0));
            assert!(name != b"." && name != b".." && !name.starts_with(b".wh."));
            assert_eq!(tree.lookup(directory, name), Some(child), "a name that is listed is found");
            let inode = tree.inode(child);
            assert!(
                inode.links > 0 && tree.by_id(inode.id()) == Some(child),
                "an inode is found by what names it"
            );
            assert!(tree.link_target(child).len() <= 4095);
            assert!(tree.xattrs(child).all(|(name, _)| !name.is_empty() && name.len() <= 255));
            match inode.kind {
                InodeKind::Directory => {
                    assert!(!reached[child.position()], "a directory has one parent");
                    pending.push(child);
                }
                _ => reached[child.position()] = true,
            }
        }
    }
    assert!(reached.into_iter().all(|reached| reached), "nothing is left over");
    for (path, directory) in tree.implied() {
        assert_eq!(tree.find(&path), Some(directory));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let entry = |kind: u8, layer: u8, attributes: u8, name: &str, target: &str| {
        let mut entry = vec![layer << 3 | kind, attributes, name.len() as u8];
        entry.extend(name.bytes());
        entry.push(target.len() as u8);
        entry.extend(target.bytes());
        entry
    };
    vec![
        [
            entry(1, 0, 0x1e, "a/", ""),
            entry(0, 0, 7, "a/file", ""),
            entry(3, 0, 7, "a/link", "a/file"),
            entry(2, 0, 7, "a/symlink", "/etc/passwd"),
            entry(0, 1, 9, "a/.wh.file", ""),
            entry(3, 1, 9, "below", "a/link"),
            entry(0, 2, 0, "a/.wh..wh..opq", ""),
            entry(4, 2, 0, "whiteout", ""),
            entry(6, 2, 0x40, "./implied/deep/fifo", ""),
        ]
        .concat(),
        [
            entry(0, 0, 1, "x", ""),
            entry(0, 0, 2, "x/y/../z", ""),
            entry(1, 0, 0x80, "./", ""),
            entry(1, 1, 0xc0, "x", "value"),
            entry(5, 1, 1, "x/block", ""),
            entry(0, 2, 0, ".wh.x", ""),
        ]
        .concat(),
        vec![1, 0, 255, b'n', 0, 8, 0, 255, b'/', 255, b't'],
    ]
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    let Some(layers) = layers(data) else { return };
    for layer in &layers {
        let _ = Tree::check(layer);
    }
    let layers: Vec<&Ztoc> = layers.iter().collect();
    for below in
        [Below::Nothing, Below::Layers(OverlayNamespace::Trusted), Below::Layers(OverlayNamespace::User)]
    {
        if let Ok(tree) = Tree::merge(&layers, below) {
            check(&tree);
        }
    }
});
