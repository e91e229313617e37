//! What inodes are named by.

use std::collections::HashMap;

use testdata::image::Entry;

use super::{merge, merge_below, walk};
use crate::content::tree::{Below, FileId, InodeId, InodeKind, OverlayNamespace, Tree};

fn layers() -> Vec<Vec<Entry>> {
    let lower = (0..300).map(|i| Entry::file(format!("d{}/f{i}", i % 17), "x"));
    let upper = (0..300).map(|i| Entry::file(format!("d{}/e{}/g{i}", i % 13, i % 3), "y"));
    let marks = [Entry::whiteout("d1/f1"), Entry::hard_link("d2/link", "d0/f0"), Entry::opaque("d4")];
    vec![lower.collect(), upper.chain(marks).collect()]
}

#[test]
fn they_are_the_same_every_time() {
    let numbers = |tree: &Tree| {
        walk(tree).into_iter().map(|(path, index)| (path, tree.inode(index).id())).collect::<Vec<_>>()
    };
    for below in [Below::Nothing, Below::Layers(OverlayNamespace::Trusted)] {
        let first = merge_below(&layers(), below).unwrap();
        assert_eq!(numbers(&first), numbers(&merge_below(&layers(), below).unwrap()));
    }
}

#[test]
fn they_are_unique_and_lead_back() {
    let tree = merge_below(&layers(), Below::Layers(OverlayNamespace::Trusted)).unwrap();
    let mut seen = HashMap::new();
    for index in walk(&tree).into_values() {
        let inode = tree.inode(index);
        assert_eq!(tree.by_id(inode.id()), Some(index));
        assert_eq!(*seen.entry(inode.id()).or_insert(index), index);
        match inode.id() {
            InodeId::File(_) => assert_ne!(inode.kind, InodeKind::Directory),
            InodeId::Own(own) => {
                assert!((own as usize) < tree.own_len());
                assert!(matches!(inode.kind, InodeKind::Directory | InodeKind::Char));
            }
        }
    }
    assert_eq!(seen.len(), tree.len());
    assert_eq!(tree.by_id(InodeId::Own(0)), Some(tree.root()));
}

#[test]
fn files_are_named_by_layer_and_entry() {
    let lower = vec![Entry::dir("a"), Entry::file("a/x", "1")];
    let alone = merge(std::slice::from_ref(&lower));
    let covered = merge(&[lower, vec![Entry::file("a/y", "2")]]);
    let id = |tree: &Tree, path: &[u8]| tree.inode(tree.find(path).unwrap()).id();
    assert_eq!(id(&alone, b"a/x"), id(&covered, b"a/x"));
    assert_eq!(id(&covered, b"a/y"), InodeId::File(FileId { layer: 1, entry: 0 }));
}

#[test]
fn unknown_names_are_nothing() {
    let tree = merge(&layers());
    let file = |layer, entry| InodeId::File(FileId { layer, entry });
    assert!(tree.by_id(file(0, 0)).is_some());
    let unknown = [file(0, 1 << 20), file(0, u32::MAX), file(9, 0), file(u16::MAX, 0)];
    let own = [tree.own_len() as u32, u32::MAX].map(InodeId::Own);
    for id in unknown.into_iter().chain(own) {
        assert_eq!(tree.by_id(id), None, "{id:?}");
    }
    // An entry that a layer above hides has no inode.
    assert_eq!(tree.by_id(file(0, 1)), None);
}
