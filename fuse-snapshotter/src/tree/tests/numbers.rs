//! Inode numbers.

use std::collections::HashMap;

use testdata::image::Entry;

use super::{merge, merge_below, walk};
use crate::tree::{Below, FileId, InodeKind, OverlayNamespace, ROOT, Tree};

fn layers() -> Vec<Vec<Entry>> {
    let lower = (0..300).map(|i| Entry::file(format!("d{}/f{i}", i % 17), "x"));
    let upper = (0..300).map(|i| Entry::file(format!("d{}/e{}/g{i}", i % 13, i % 3), "y"));
    let marks = [Entry::whiteout("d1/f1"), Entry::hard_link("d2/link", "d0/f0"), Entry::opaque("d4")];
    vec![lower.collect(), upper.chain(marks).collect()]
}

#[test]
fn they_are_the_same_every_time() {
    let numbers = |tree: &Tree| {
        walk(tree).into_iter().map(|(path, index)| (path, tree.inode(index).number)).collect::<Vec<_>>()
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
        assert!(inode.number < 1 << 48 && inode.number >= ROOT);
        assert_eq!(tree.by_number(inode.number), Some(index));
        assert_eq!(*seen.entry(inode.number).or_insert(index), index);
        match Tree::file_of(inode.number) {
            Some(file) => assert_eq!(Tree::file_number(file), inode.number),
            None => assert!(matches!(inode.kind, InodeKind::Directory | InodeKind::Char)),
        }
    }
    assert_eq!(seen.len(), tree.len());
    assert_eq!(tree.by_number(ROOT), Some(tree.root()));
}

#[test]
fn files_are_named_by_layer_and_entry() {
    let lower = vec![Entry::dir("a"), Entry::file("a/x", "1")];
    let alone = merge(std::slice::from_ref(&lower));
    let covered = merge(&[lower, vec![Entry::file("a/y", "2")]]);
    let number = |tree: &Tree, path: &[u8]| tree.inode(tree.find(path).unwrap()).number;
    assert_eq!(number(&alone, b"a/x"), number(&covered, b"a/x"));
    assert_eq!(Tree::file_of(number(&covered, b"a/y")), Some(FileId { layer: 1, entry: 0 }));
}

#[test]
fn unknown_numbers_are_nothing() {
    let tree = merge(&layers());
    let hidden = tree.inode(tree.find(b"d0/f0").unwrap()).number;
    assert!(tree.by_number(hidden).is_some());
    for number in [0, 1 << 20, 1 << 32 | 0xffff, 9 << 32, 1 << 48, u64::MAX] {
        assert_eq!(tree.by_number(number), None, "{number:#x}");
    }
    // An entry that a layer above hides has no inode.
    assert_eq!(tree.by_number(Tree::file_number(FileId { layer: 0, entry: 1 })), None);
    for number in [0, 1, u64::from(u32::MAX), 1 << 50, u64::MAX] {
        assert_eq!(Tree::file_of(number), None, "{number:#x}");
    }
    let last = FileId { layer: u16::MAX - 1, entry: u32::MAX };
    assert!(Tree::file_number(last) < 1 << 48);
    assert_eq!(Tree::file_of(Tree::file_number(last)), Some(last));
}
