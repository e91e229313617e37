//! The merge rules, one by one.

use testdata::image::Entry;

use super::{merge, merge_below, paths, ztoc};
use crate::content::tree::{Below, FileId, InodeId, InodeKind, OverlayNamespace, Tree};

fn file(path: &str) -> Entry {
    Entry::file(path, "content")
}

fn id(layer: u16, entry: u32) -> InodeId {
    InodeId::File(FileId { layer, entry })
}

fn mode(tree: &Tree, path: &str) -> u16 {
    tree.inode(tree.find(path.as_bytes()).unwrap()).mode
}

fn on_layers(layers: &[Vec<Entry>]) -> Tree {
    merge_below(layers, Below::Layers(OverlayNamespace::Trusted)).unwrap()
}

fn is_opaque(tree: &Tree, path: &str) -> bool {
    let mut xattrs = tree.xattrs(tree.find(path.as_bytes()).unwrap());
    xattrs.any(|xattr| xattr == (b"trusted.overlay.opaque", b"y"))
}

fn is_whiteout(tree: &Tree, path: &str) -> bool {
    tree.find(path.as_bytes()).is_some_and(|index| {
        let inode = tree.inode(index);
        (inode.kind, inode.device) == (InodeKind::Char, (0, 0))
    })
}

#[test]
fn names_are_cleaned() {
    let tree = merge(&[vec![
        Entry::dir("./"),
        Entry::dir("./a/"),
        file("/a//b"),
        file("a/./x/../c"),
        file("../../d"),
    ]]);
    assert_eq!(paths(&tree), ["a", "a/b", "a/c", "d"].map(String::from));
    assert_eq!(tree.find(b"./a/../a//b"), tree.find(b"a/b"));
}

#[test]
fn a_component_that_dot_dot_removes_again_is_not_implied() {
    assert_eq!(paths(&merge(&[vec![file("x/../y")]])), ["y"]);
}

#[test]
fn the_entry_of_the_root_describes_the_root() {
    let tree = merge(&[vec![Entry::dir("./").mode(0o700).owner(3, 4)], vec![file("a")]]);
    let root = tree.inode(tree.root());
    assert_eq!((root.mode, root.uid, root.gid, root.id()), (0o700, 3, 4, InodeId::Own(0)));
    // What is not a directory cannot be the root.
    assert_eq!(
        mode(&merge(&[vec![Entry::symlink("/", "x"), Entry::char_device("./", 0, 0), file("a")]]), "/"),
        0o755
    );
}

#[test]
fn an_implied_parent_has_the_attributes_from_below() {
    let lower = vec![Entry::dir("tmp").mode(0o1777).owner(7, 8)];
    let tree = merge(&[lower.clone(), vec![file("tmp/x")]]);
    let tmp = tree.inode(tree.find(b"tmp").unwrap());
    assert_eq!((tmp.mode, tmp.uid, tmp.gid), (0o1777, 7, 8));
    // Unless the layer hides what is below.
    assert_eq!(mode(&merge(&[lower, vec![file("tmp/x"), Entry::whiteout("tmp")]]), "tmp"), 0o755);
}

#[test]
fn an_implied_parent_of_nothing_is_roots() {
    let tree = merge(&[vec![file("a/b")]]);
    let a = tree.inode(tree.find(b"a").unwrap());
    assert_eq!((a.mode, a.uid, a.gid, a.mtime.seconds), (0o755, 0, 0, 0));
}

#[test]
fn a_directory_again_keeps_its_children_and_takes_the_later_attributes() {
    let tree = merge(&[vec![Entry::dir("d").mode(0o700), file("d/f"), Entry::dir("d").mode(0o711)]]);
    assert_eq!((paths(&tree), mode(&tree, "d")), (vec!["d".into(), "d/f".into()], 0o711));
}

#[test]
fn a_file_again_replaces_the_earlier_one() {
    let tree = merge(&[vec![Entry::file("f", "a"), Entry::file("f", "bcd").mode(0o600), file("g")]]);
    let f = tree.inode(tree.find(b"f").unwrap());
    assert_eq!((f.size, f.mode, f.id()), (3, 0o600, id(0, 1)));
}

#[test]
fn files_and_directories_replace_each_other() {
    let directory = vec![Entry::dir("p"), file("p/c")];
    let other = vec![file("p")];
    assert_eq!(paths(&merge(&[directory.clone(), other.clone()])), ["p"]);
    assert_eq!(paths(&merge(&[other.clone(), directory.clone()])), ["p", "p/c"]);
    // What was hidden does not come back.
    assert_eq!(paths(&merge(&[directory.clone(), other.clone(), vec![Entry::dir("p")]])), ["p"]);
    // The same within one layer.
    let all = [directory, other, vec![Entry::dir("p"), file("p/d")]].concat();
    assert_eq!(paths(&merge(&[all])), ["p", "p/d"]);
}

#[test]
fn a_file_in_place_of_a_directory_ends_what_stood_in_it() {
    // The second `p/x` must not land in the directory that is gone.
    let tree = merge(&[vec![file("p/a"), file("p"), file("p/x"), file("p/y")]]);
    assert_eq!(paths(&tree), ["p", "p/x", "p/y"]);
}

#[test]
fn a_link_is_never_followed_as_a_parent() {
    let tree = merge(&[vec![Entry::dir("real"), Entry::symlink("l", "real"), file("l/x")]]);
    assert_eq!(paths(&tree), ["l", "l/x", "real"]);
}

#[test]
fn a_whiteout_hides_what_is_below_it_only() {
    let lower = vec![file("a/x"), file("a/y/z"), file("a/yy")];
    let upper = vec![Entry::whiteout("a/y"), Entry::whiteout("a/x"), Entry::file("a/x", "new")];
    let tree = merge(&[lower.clone(), upper.clone()]);
    assert_eq!(paths(&tree), ["a", "a/x", "a/yy"]);
    assert_eq!(tree.inode(tree.find(b"a/x").unwrap()).size, 3);
    // Wherever in the layer it stands.
    let reversed = upper.into_iter().rev().collect();
    assert_eq!(paths(&merge(&[lower, reversed])), ["a", "a/x", "a/yy"]);
}

#[test]
fn a_whiteout_beside_a_directory_hides_the_one_below() {
    let lower = vec![Entry::dir("d").mode(0o700), file("d/old")];
    let tree = merge(&[lower, vec![Entry::dir("d"), file("d/new"), Entry::whiteout("d")]]);
    assert_eq!((paths(&tree), mode(&tree, "d")), (vec!["d".into(), "d/new".into()], 0o755));
}

#[test]
fn a_whiteout_of_nothing_hides_nothing() {
    assert_eq!(
        paths(&merge(&[vec![file("a")], vec![Entry::whiteout("b"), Entry::whiteout("c/d")]])),
        ["a", "c"]
    );
}

#[test]
fn an_opaque_marker_hides_all_below_and_nothing_beside() {
    let lower = vec![Entry::dir("d").mode(0o700), file("d/old"), file("d/s/deep")];
    let tree = merge(&[lower.clone(), vec![file("d/new"), Entry::opaque("d")]]);
    assert_eq!((paths(&tree), mode(&tree, "d")), (vec!["d".into(), "d/new".into()], 0o700));
    assert_eq!(paths(&merge(&[lower, vec![Entry::opaque(""), file("n")]])), ["n"]);
}

#[test]
fn a_character_device_0_0_is_a_whiteout() {
    let lower = vec![file("x"), file("n")];
    let tree = merge(&[lower.clone(), vec![Entry::char_device("x", 0, 0), Entry::char_device("null", 1, 3)]]);
    assert_eq!(paths(&tree), ["n", "null"]);
    // And an entry like any other: it takes the place of an earlier one.
    assert_eq!(paths(&merge(&[lower, vec![file("x/y"), file("x"), Entry::char_device("x", 0, 0)]])), ["n"]);
    let replaced = vec![file("x/y"), Entry::char_device("x", 0, 0), file("x/z")];
    assert_eq!(paths(&merge(&[replaced])), ["x", "x/z"]);
}

#[test]
fn bookkeeping_of_aufs_and_whiteouts_of_no_name_mean_nothing() {
    let marks = [".wh..wh.plnk", ".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."]
        .map(|name| Entry::file(name, ""));
    let layers = [vec![file("d/f"), file("g")], marks.to_vec()];
    assert_eq!(paths(&merge(&layers)), ["d", "d/f", "g"]);
    assert_eq!(paths(&on_layers(&layers)), ["d", "d/f", "g"]);
}

#[test]
fn hard_links_are_one_file() {
    let tree = merge(&[vec![file("a"), Entry::hard_link("d/b", "./a"), Entry::hard_link("c", "d/b")]]);
    let a = tree.find(b"a").unwrap();
    assert_eq!((tree.find(b"d/b"), tree.find(b"c"), tree.inode(a).links), (Some(a), Some(a), 3));
}

#[test]
fn a_hard_link_keeps_the_file_that_it_named() {
    let tree = merge(&[vec![Entry::file("a", "1"), Entry::hard_link("b", "a"), Entry::file("a", "22")]]);
    let size = |path: &str| tree.inode(tree.find(path.as_bytes()).unwrap()).size;
    assert_eq!((size("a"), size("b"), tree.inode(tree.find(b"b").unwrap()).links), (2, 1, 1));
}

#[test]
fn a_hard_link_to_a_layer_below_has_the_file_as_it_was_there() {
    let lower = vec![Entry::file("a", "old").mode(0o600)];
    for upper in [
        vec![Entry::hard_link("b", "a"), Entry::file("a", "newer")],
        vec![Entry::whiteout("a"), Entry::hard_link("b", "a")],
        vec![Entry::opaque(""), Entry::hard_link("b", "a"), Entry::hard_link("c", "b")],
    ] {
        let tree = merge(&[lower.clone(), upper]);
        let b = tree.inode(tree.find(b"b").unwrap());
        assert_eq!((b.size, b.mode, b.id()), (3, 0o600, id(0, 0)));
    }
}

#[test]
fn a_link_below_is_an_entry_in_its_place() {
    let lower = vec![file("t")];
    // It replaces what came before, and is replaced by what comes after.
    let tree = merge(&[lower.clone(), vec![file("l/x"), Entry::hard_link("l", "t")]]);
    assert_eq!(tree.find(b"l"), tree.find(b"t"));
    let tree = merge(&[lower.clone(), vec![Entry::hard_link("l", "t"), Entry::dir("l"), file("l/x")]]);
    assert_eq!(paths(&tree), ["l", "l/x", "t"]);
    assert_eq!(tree.inode(tree.find(b"t").unwrap()).links, 1);
    // An upper layer replaces it, too.
    let tree = merge(&[lower, vec![Entry::hard_link("l", "t")], vec![file("l")]]);
    assert_ne!(tree.find(b"l"), tree.find(b"t"));
}

#[test]
fn attributes_are_those_of_the_entry() {
    let entry = Entry::file("f", "abc")
        .mode(0o104755)
        .owner(70_000, 80_000)
        .mtime(-5, 7)
        .xattr("user.b", b"v\0")
        .xattr("security.capability", "c")
        .xattr("trusted.overlay.opaque", "y")
        .xattr("user.overlay.redirect", "/x");
    let tree =
        merge(&[vec![entry, Entry::symlink("l", "f"), Entry::block_device("b", 8, 300), Entry::fifo("p")]]);
    let f = tree.find(b"f").unwrap();
    let inode = tree.inode(f);
    assert_eq!((inode.mode, inode.uid, inode.gid, inode.size), (0o4755, 70_000, 80_000, 3));
    assert_eq!((inode.mtime.seconds, inode.mtime.nanos), (-5, 7));
    let xattrs: Vec<(&[u8], &[u8])> = tree.xattrs(f).collect();
    assert_eq!(xattrs, [(&b"security.capability"[..], &b"c"[..]), (b"user.b", b"v\0")]);
    let l = tree.find(b"l").unwrap();
    assert_eq!((tree.link_target(l), tree.inode(l).size), (&b"f"[..], 1));
    assert_eq!(tree.inode(tree.find(b"b").unwrap()).device, (8, 300));
    assert_eq!(tree.inode(tree.find(b"p").unwrap()).kind, InodeKind::Fifo);
    assert_eq!((tree.total_size(), tree.len(), tree.has_xattrs(), tree.is_empty()), (3, 5, true, false));
}

/// macOS's bsdtar writes 0755, some build rules 0644 or nothing at all.
#[test]
fn a_symbolic_link_has_mode_0777_whatever_its_header_says() {
    let link = |mode: u32| Entry::symlink(format!("l{mode:o}"), "f").mode(mode);
    let modes = [0o777, 0o755, 0o644, 0, 0o4755];
    let lower = modes.into_iter().map(link).chain([Entry::hard_link("again", "l644").mode(0o600)]);
    let tree = merge(&[lower.collect(), vec![Entry::symlink("upper", "f").mode(0o120_755)]]);
    for name in ["l777", "l755", "l644", "l0", "l4755", "again", "upper"] {
        let inode = tree.inode(tree.find(name.as_bytes()).unwrap());
        assert_eq!((inode.kind, inode.mode), (InodeKind::Symlink, 0o777), "{name}");
    }
}

#[test]
fn no_layer_is_an_empty_root() {
    let tree = Tree::merge(&[], Below::Nothing).unwrap();
    assert_eq!((tree.len(), tree.children(tree.root(), 0).count(), tree.inode(tree.root()).links), (1, 0, 2));
    assert_eq!(Tree::merge(&[&ztoc(&[])], Below::Nothing).unwrap().len(), 1);
}

#[test]
fn children_are_sorted_and_listed_from_any_position() {
    let tree = merge(&[vec![file("b"), file("a/z"), file("c"), file("a.x")]]);
    let names = |start| tree.children(tree.root(), start).map(|(name, _)| name.to_vec()).collect::<Vec<_>>();
    assert_eq!(names(0), [&b"a"[..], b"a.x", b"b", b"c"]);
    assert_eq!((names(3), names(4), names(9)), (vec![b"c".to_vec()], vec![], vec![]));
    assert_eq!(tree.children(tree.find(b"b").unwrap(), 0).count(), 0);
}

#[test]
fn above_other_layers_whiteouts_stay() {
    let tree = on_layers(&[
        vec![file("d/x"), Entry::whiteout("w"), Entry::whiteout("d/v")],
        vec![Entry::whiteout("d/x")],
    ]);
    assert!(is_whiteout(&tree, "w") && is_whiteout(&tree, "d/v") && is_whiteout(&tree, "d/x"));
    // Overlayfs lists whiteouts in a directory with nothing below, unless it is told that there may be some.
    let origin = (&b"trusted.overlay.origin"[..], &b""[..]);
    for path in ["", "d"] {
        assert!(tree.xattrs(tree.find(path.as_bytes()).unwrap()).any(|xattr| xattr == origin));
    }
    let user = merge_below(&[vec![Entry::whiteout("w")]], Below::Layers(OverlayNamespace::User)).unwrap();
    assert!(user.xattrs(user.root()).any(|(name, _)| name == b"user.overlay.origin"));
    assert!(!tree.hides_all_below());
}

#[test]
fn above_other_layers_what_replaces_is_opaque() {
    let marker =
        on_layers(&[vec![file("d/x")], vec![Entry::opaque("d"), file("d/y"), Entry::whiteout("d/z")]]);
    assert!(is_opaque(&marker, "d"));
    // A whiteout in an opaque directory hides nothing.
    assert_eq!(paths(&marker), ["d", "d/y"]);
    let whiteout = on_layers(&[vec![Entry::whiteout("d")], vec![file("d/y")]]);
    assert!(is_opaque(&whiteout, "d"));
    let beside = on_layers(&[vec![Entry::whiteout("d"), file("d/y")]]);
    assert!(is_opaque(&beside, "d"));
    let over_file = on_layers(&[vec![file("d")], vec![file("d/y")]]);
    assert!(is_opaque(&over_file, "d"));
    let merged = on_layers(&[vec![file("d/x")], vec![Entry::dir("d"), file("d/y")]]);
    assert!(!is_opaque(&merged, "d") && !is_opaque(&merged, "d/.."));
    // It stays opaque under later layers.
    assert!(is_opaque(&on_layers(&[vec![file("d")], vec![file("d/y")], vec![file("d/z")]]), "d"));
    assert!(on_layers(&[vec![Entry::opaque("")], vec![file("d/z")]]).hides_all_below());
}

#[test]
fn above_other_layers_directories_without_an_entry_are_known() {
    let tree = on_layers(&[
        vec![file("a/b/c"), Entry::dir("d"), file("d/e/f"), Entry::opaque("o"), file("o/p/q")],
        vec![Entry::dir("a"), Entry::whiteout("r"), file("r/s"), file("a/b/x")],
    ]);
    let mut implied: Vec<_> =
        tree.implied().into_iter().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
    implied.sort();
    // `a` has got an entry after all; `r` replaces the one below, and what is in `o` has nothing below it.
    assert_eq!(implied, ["", "a/b", "d/e", "o"]);
}
