//! The oracle's own rules, one by one.

use super::{NodeType, Tree, merge, merge_entries};
use crate::image::{Entry, Kind, Layer};

fn tree(layers: &[&[Entry]]) -> Tree {
    merge_entries(layers.iter().copied())
}

fn paths(layers: &[&[Entry]]) -> Vec<String> {
    // Without the root.
    tree(layers).paths().split_off(1)
}

#[test]
fn whiteout_hides_what_is_below_and_only_that() {
    let lower = [Entry::file("a/x", "1"), Entry::file("a/y/z", "2"), Entry::file("a/yy", "3")];
    let upper = [Entry::whiteout("a/y"), Entry::whiteout("a/x"), Entry::file("a/x", "new")];
    assert_eq!(paths(&[&lower, &upper]), ["a", "a/x", "a/yy"]);
    assert_eq!(tree(&[&lower, &upper]).get("a/x").unwrap().layer, Some(1));
    // The order within the layer does not matter.
    let reversed: Vec<Entry> = upper.iter().rev().cloned().collect();
    assert_eq!(tree(&[&lower, &upper]), tree(&[&lower, &reversed]));
}

#[test]
fn opaque_directory_shows_its_own_layer_only() {
    let lower =
        [Entry::dir("d").mode(0o700).owner(5, 6), Entry::file("d/old", ""), Entry::file("d/s/deep", "")];
    let upper = [Entry::file("d/new", ""), Entry::opaque("d")];
    let merged = tree(&[&lower, &upper]);
    assert_eq!(merged.paths(), ["", "d", "d/new"]);
    // The marker brings no attributes: those below stay.
    assert_eq!((merged.get("d").unwrap().mode, merged.get("d").unwrap().uid), (0o700, 5));
    assert_eq!(paths(&[&lower, &[Entry::opaque("")]]), Vec::<String>::new());
}

#[test]
fn files_and_directories_replace_each_other() {
    let dir = [Entry::dir("p"), Entry::file("p/child", "")];
    let file = [Entry::file("p", "x")];
    let merged = tree(&[&dir, &file]);
    assert_eq!((merged.paths().len(), merged.get("p").unwrap().node_type), (2, NodeType::File));
    assert_eq!(paths(&[&file, &dir]), ["p", "p/child"]);
    // What the file hid does not come back under the directory.
    assert_eq!(paths(&[&dir, &file, &[Entry::dir("p")]]), ["p"]);
}

#[test]
fn implied_parents() {
    let lower = [Entry::dir("a").mode(0o1777).owner(7, 8).mtime(99, 1)];
    let merged = tree(&[&lower, &[Entry::file("a/b/c", "")]]);
    let a = merged.get("a").unwrap();
    assert_eq!((a.mode, a.uid, a.gid, a.mtime, a.layer), (0o1777, 7, 8, (99, 1), Some(0)));
    let b = merged.get("a/b").unwrap();
    assert_eq!((b.mode, b.uid, b.mtime, b.layer), (0o755, 0, (0, 0), None));
    // A whiteout in the same layer takes the attributes away.
    let merged = tree(&[&lower, &[Entry::file("a/b", ""), Entry::whiteout("a")]]);
    assert_eq!(merged.get("a").unwrap().mode, 0o755);
    // An entry that comes later than its children still counts.
    let merged = tree(&[&[Entry::file("q/r", ""), Entry::dir("q").mode(0o711)]]);
    assert_eq!((merged.get("q").unwrap().mode, merged.paths().len()), (0o711, 3));
}

#[test]
fn directory_replacing_a_whiteout_is_opaque() {
    let lower = [Entry::dir("d").mode(0o700), Entry::file("d/old", "")];
    let upper = [Entry::whiteout("d"), Entry::dir("d").mode(0o750), Entry::file("d/new", "")];
    let merged = tree(&[&lower, &upper]);
    assert_eq!(merged.paths(), ["", "d", "d/new"]);
    assert_eq!(merged.get("d").unwrap().mode, 0o750);
}

#[test]
fn devices_as_whiteouts() {
    let lower = [Entry::file("x", ""), Entry::file("n", "")];
    let merged = tree(&[&lower, &[Entry::char_device("x", 0, 0), Entry::char_device("null", 1, 3)]]);
    assert_eq!(merged.paths(), ["", "n", "null"]);
    assert_eq!(merged.get("null").unwrap().device, Some((1, 3)));
}

#[test]
fn hard_links_share_an_inode() {
    let lower =
        [Entry::file("a", "data").mode(0o600), Entry::hard_link("b", "./a"), Entry::hard_link("gone", "no")];
    let upper = [Entry::hard_link("c", "a"), Entry::file("a", "changed")];
    let merged = tree(&[&lower, &upper]);
    assert_eq!(merged.hard_links(), [[b"b".to_vec(), b"c".to_vec()]]);
    assert_eq!((merged.links("b"), merged.links("a")), (2, 1));
    assert_eq!(merged.get("c").unwrap().mode, 0o600);
    assert!(merged.get("gone").is_none());
}

#[test]
fn names_are_cleaned_and_duplicates_replaced() {
    let layer = [
        Entry::dir("./"),
        Entry::dir("./d/"),
        Entry::file("/d//f", "1"),
        Entry::file("d/../d/f", "22"),
        Entry::file("../../out", ""),
        Entry::file(".wh..wh.plnk", ""),
        Entry::global_pax(&[("comment", "x")]),
        Entry::other("odd", b'V', ""),
    ];
    let merged = tree(&[&layer]);
    assert_eq!(merged.paths(), ["", "d", "d/f", "out"]);
    assert_eq!(merged.get("d/f").unwrap().size, 2);
    assert_eq!(merged.get("").unwrap().layer, Some(0));
}

#[test]
fn attributes() {
    let entry = Entry::file("f", "abc")
        .mode(0o104755)
        .owner(1, 2)
        .mtime(3, 4)
        .xattr("user.k", b"v\0")
        .xattr("trusted.overlay.opaque", "y")
        .xattr("user.overlay.opaque", "y");
    let merged =
        tree(&[&[entry, Entry::symlink("l", "f"), Entry::fifo("p"), Entry::new("b", Kind::Block(8, 1))]]);
    let f = merged.get("f").unwrap();
    assert_eq!((f.mode, f.uid, f.gid, f.size, f.mtime), (0o4755, 1, 2, 3, (3, 4)));
    assert_eq!(f.digest, Some(crate::digest::sha256(b"abc")));
    assert_eq!(f.xattrs.iter().collect::<Vec<_>>(), [(&b"user.k".to_vec(), &b"v\0".to_vec())]);
    let l = merged.get("l").unwrap();
    assert_eq!((l.size, l.target.as_deref()), (1, Some(&b"f"[..])));
    assert_eq!(merged.get("p").unwrap().node_type, NodeType::Fifo);
    assert_eq!(merged.get("b").unwrap().device, Some((8, 1)));
}

#[test]
fn layers_carry_their_entries() {
    let lower: Layer = [Entry::file("a/x", "1"), Entry::file("a/y", "2")].into_iter().collect();
    let upper: Layer = [Entry::whiteout("a/x")].into_iter().collect();
    let merged = merge(&[lower, upper]);
    assert_eq!(merged.paths(), ["", "a", "a/y"]);
    assert_eq!(merged.children(""), [b"a".to_vec()]);
    assert_eq!(merged.children("a"), [b"y".to_vec()]);
}
