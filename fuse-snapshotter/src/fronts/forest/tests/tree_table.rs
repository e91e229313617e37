//! Trees that come, share layers, and go.

use std::sync::Arc;

use testdata::image::{Entry, Texture};

use super::{Made, Rig, add_tree, at, merge, names, slots, tree_of, walk};
use crate::content::tree::InodeKind;
use crate::fronts::forest::tree_table::check;
use crate::fronts::forest::{AddTreeError, Forest, FsError, IdMaps, IdRange, LayerSlot, ROOT, TreeSlot};

fn text(path: &str, seed: u64, size: u64) -> Entry {
    Entry::made(path, Texture::Text, seed, size)
}

fn base(rig: &Rig) -> Made {
    rig.layer(&[
        Entry::dir("etc"),
        text("etc/shared", 1, 9000),
        Entry::hard_link("etc/other-name", "etc/shared"),
        text("etc/hidden-in-one", 2, 700),
        Entry::symlink("link", "etc/shared"),
        Entry::char_device("null", 1, 3),
    ])
}

/// Two images with one layer in common.
fn two(rig: &Rig) -> (Forest, Made) {
    let (base, one) = (base(rig), rig.layer(&[Entry::whiteout("etc/hidden-in-one"), text("one", 3, 10)]));
    let two = rig.layer(&[text("etc/two", 4, 10)]);
    let forest = Forest::new();
    add_tree(&forest, 1, "one", &[(10, &base), (11, &one)]);
    add_tree(&forest, 2, "two", &[(10, &base), (12, &two)]);
    (forest, base)
}

#[test]
fn files_of_a_shared_layer_have_one_number_and_directories_do_not() {
    let rig = Rig::new();
    let (forest, _) = two(&rig);
    assert_eq!(names(&forest, ""), ["one", "two"]);
    for path in ["etc/shared", "etc/other-name", "link", "null"] {
        let (one, two) = (at(&forest, &format!("one/{path}")), at(&forest, &format!("two/{path}")));
        assert_eq!(one.unwrap(), two.unwrap(), "{path}");
    }
    for path in ["", "etc"] {
        let (one, two) = (at(&forest, &format!("one/{path}")), at(&forest, &format!("two/{path}")));
        assert_ne!(one.unwrap().number, two.unwrap().number, "{path}");
    }
    let (name, other) = (at(&forest, "one/etc/shared").unwrap(), at(&forest, "one/etc/other-name").unwrap());
    assert_eq!((name.number, name.links), (other.number, 2));
    // Nothing else has a number in common.
    let all = walk(&forest, "");
    let mut numbers: Vec<_> = all.iter().map(|(_, found)| found.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let (names, shared, second_names) = (all.len(), 4, 1);
    assert_eq!(numbers.len(), names - shared - second_names);
    assert!(numbers.iter().all(|number| (1..1 << 48).contains(number)));
}

#[test]
fn numbers_are_the_same_after_a_restart_whatever_the_order() {
    let rig = Rig::new();
    let (forest, base) = two(&rig);
    let before = walk(&forest, "two");
    let again = Forest::new();
    let two = rig.layer(&[text("etc/two", 4, 10)]);
    add_tree(&again, 2, "two", &[(10, &base), (12, &two)]);
    assert_eq!(walk(&again, "two"), before);
}

#[tokio::test]
async fn removing_a_tree_leaves_the_others() {
    let rig = Rig::new();
    let (forest, base) = two(&rig);
    let shared = at(&forest, "one/etc/shared").unwrap();
    let (etc, one) = (at(&forest, "one/etc").unwrap(), at(&forest, "one/one").unwrap());
    let content = forest.read(shared.number, 100, 5000).await.unwrap();
    assert_eq!(content.len(), 5000);

    assert!(forest.remove_tree(TreeSlot(1)));
    assert!(
        !forest.remove_tree(TreeSlot(1)) && !forest.contains(TreeSlot(1)) && forest.contains(TreeSlot(2))
    );
    assert_eq!(names(&forest, ""), ["two"]);
    assert!(matches!(at(&forest, "one"), Err(FsError::NotFound)));
    for number in [etc.number, one.number] {
        assert!(matches!(forest.getattr(number), Err(FsError::Stale)));
        assert!(matches!(forest.lookup(number, b"x"), Err(FsError::Stale)));
        assert!(matches!(forest.list(number, 0, |_, _| false), Err(FsError::Stale)));
        assert!(matches!(forest.read(number, 0, 1).await, Err(FsError::Stale)));
    }
    assert_eq!(forest.getattr(shared.number).unwrap(), shared);
    assert_eq!(forest.read(shared.number, 100, 5000).await.unwrap(), content);
    // Its own layer went with it.
    assert!(forest.layer(LayerSlot(11)).is_none() && forest.layer(LayerSlot(10)).is_some());

    assert!(forest.remove_tree(TreeSlot(2)));
    assert!(matches!(forest.getattr(shared.number), Err(FsError::Stale)));
    assert!(matches!(forest.read(shared.number, 0, 1).await, Err(FsError::Stale)));
    assert_eq!(Arc::strong_count(&base.lazy), 1, "nobody else has the layer any more");
}

#[tokio::test]
async fn a_file_is_found_in_any_tree_that_shows_it() {
    let rig = Rig::new();
    let (forest, base) = two(&rig);
    let hidden = at(&forest, "two/etc/hidden-in-one").unwrap();
    assert!(matches!(at(&forest, "one/etc/hidden-in-one"), Err(FsError::NotFound)));
    assert_eq!(forest.getattr(hidden.number).unwrap(), hidden);
    let read = forest.read(hidden.number, 0, 1 << 20).await.unwrap();
    assert_eq!(read.len() as u64, hidden.size);
    assert_eq!(read, alone(&rig, text("file", 2, 700)).await);
    forest.remove_tree(TreeSlot(2));
    assert!(matches!(forest.getattr(hidden.number), Err(FsError::Stale)), "the layer is there, the file not");
    drop(base);
}

/// The content of the entry `file`, from a tree of its own.
async fn alone(rig: &Rig, entry: Entry) -> Vec<u8> {
    let made = rig.layer(&[entry]);
    let forest = Forest::single(merge(&[&made]), vec![Arc::clone(&made.lazy)]).unwrap();
    forest.read(at(&forest, "file").unwrap().number, 0, 1 << 20).await.unwrap()
}

#[test]
fn a_layer_that_a_tree_has_twice_is_served() {
    let rig = Rig::new();
    let base = base(&rig);
    let gone = rig.layer(&[Entry::whiteout("etc/shared"), text("more", 9, 1)]);
    let forest = Forest::new();
    add_tree(&forest, 1, "twice", &[(10, &base), (11, &gone), (10, &base)]);
    let all = walk(&forest, "twice");
    assert!(all.iter().any(|(path, _)| path == "twice/etc/shared"));
    assert!(forest.remove_tree(TreeSlot(1)));
    assert!(forest.layer(LayerSlot(10)).is_none());
}

#[test]
fn what_cannot_be_added_is_refused_and_changes_nothing() {
    let rig = Rig::new();
    let (forest, base) = two(&rig);
    let other = rig.layer(&[text("etc/three", 5, 10)]);
    let before = walk(&forest, "");
    let refused = |slot, name: &str, layers: &[(u32, &Made)]| {
        forest.add_tree(TreeSlot(slot), name, tree_of(layers), slots(layers), None).unwrap_err()
    };
    let plain: &[(u32, &Made)] = &[(10, &base)];
    for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert!(matches!(refused(3, name, plain), AddTreeError::InvalidName(_)), "{name:?}");
    }
    assert!(matches!(refused(3, "one", plain), AddTreeError::NameTaken(name) if name == "one"));
    assert!(matches!(refused(2, "three", plain), AddTreeError::TreeSlotTaken(TreeSlot(2))));
    assert!(matches!(refused(0, "three", plain), AddTreeError::NoSuchTreeSlot(_)));
    assert!(matches!(refused(1 << 20, "three", plain), AddTreeError::NoSuchTreeSlot(_)));
    assert!(matches!(refused(3, "three", &[(1 << 21, &base)]), AddTreeError::NoSuchLayerSlot(_)));
    assert!(matches!(refused(3, "three", &[(10, &other)]), AddTreeError::LayerSlotTaken(LayerSlot(10))));
    assert!(matches!(
        refused(3, "three", &[(20, &base), (20, &other)]),
        AddTreeError::LayerSlotTaken(LayerSlot(20))
    ));
    let of_others = |layers: &[(u32, &Made)]| {
        forest.add_tree(TreeSlot(3), "three", tree_of(plain), slots(layers), None).unwrap_err()
    };
    for layers in [&[][..], &[(20, &other)], &[(20, &base), (21, &other)]] {
        assert!(matches!(of_others(layers), AddTreeError::OtherLayers));
    }
    assert_eq!(walk(&forest, ""), before);
    assert!(forest.layer(LayerSlot(20)).is_none());
    add_tree(&forest, 3, "three", &[(10, &base), (20, &other)]);
    assert_eq!(names(&forest, ""), ["one", "three", "two"]);
}

#[test]
fn the_same_layer_opened_twice_is_read_through_one_of_them() {
    let rig = Rig::new();
    let base = base(&rig);
    let again = Made {
        lazy: rig.open(&base.ztoc, base.lazy.digest()),
        ztoc: base.ztoc.clone(),
        blob: base.blob.clone(),
    };
    let forest = Forest::new();
    add_tree(&forest, 1, "one", &[(10, &base)]);
    add_tree(&forest, 2, "two", &[(10, &again)]);
    assert_eq!(at(&forest, "one/etc/shared").unwrap(), at(&forest, "two/etc/shared").unwrap());
    assert_eq!(Arc::strong_count(&again.lazy), 1);
    assert!(Arc::ptr_eq(&forest.layer(LayerSlot(10)).unwrap(), &base.lazy));
}

#[test]
fn owners_are_translated_in_trees_of_their_own() {
    let rig = Rig::new();
    let made = rig.layer(&[
        Entry::dir("root").mode(0o700),
        text("user", 1, 5).owner(1000, 7),
        text("beyond", 2, 5).owner(70_000, 0),
    ]);
    let forest = Forest::new();
    let range = |host| vec![IdRange { container: 0, host, size: 65_536 }];
    let ids = IdMaps { uids: range(100_000), gids: range(200_000) };
    let layers = |slot| vec![(LayerSlot(slot), Arc::clone(&made.lazy))];
    add_tree(&forest, 1, "plain", &[(0, &made)]);
    forest.add_tree(TreeSlot(2), "mapped", merge(&[&made]), layers(1), Some(ids.clone())).unwrap();
    let owner = |path: &str| at(&forest, path).map(|found| (found.uid, found.gid)).unwrap();
    assert_eq!(owner("plain/user"), (1000, 7));
    assert_eq!(owner("mapped"), (100_000, 200_000));
    assert_eq!(owner("mapped/root"), (100_000, 200_000));
    assert_eq!(owner("mapped/user"), (101_000, 200_007));
    assert_eq!(owner("mapped/beyond"), (65_534, 200_000));
    assert_eq!(owner("mapped/.soci-snapshotter"), (100_000, 200_000));
    // An inode has one owner.
    let refused = forest.add_tree(TreeSlot(3), "three", merge(&[&made]), layers(0), Some(ids.clone()));
    assert!(matches!(refused, Err(AddTreeError::OtherOwners(LayerSlot(0)))));
    forest.add_tree(TreeSlot(3), "three", merge(&[&made]), layers(1), Some(ids)).unwrap();
}

#[test]
fn a_single_tree_is_the_root_and_stays_alone() {
    let rig = Rig::new();
    let base = base(&rig);
    let forest = Forest::single(merge(&[&base]), vec![Arc::clone(&base.lazy)]).unwrap();
    assert_eq!(names(&forest, ""), ["etc", "link", "null"]);
    let root = forest.getattr(ROOT).unwrap();
    assert_eq!((root.number, root.kind, root.mode), (ROOT, InodeKind::Directory, 0o755));
    assert!(walk(&forest, "").iter().all(|(_, found)| found.number < 1 << 48));
    let more = forest.add_tree(TreeSlot(1), "more", merge(&[&base]), slots(&[(0, &base)]), None);
    assert!(matches!(more, Err(AddTreeError::NoSuchTreeSlot(_))));
    assert!(!forest.remove_tree(TreeSlot(0)));
    assert!(matches!(Forest::single(merge(&[&base]), vec![]), Err(AddTreeError::OtherLayers)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let layers = |slot, entries| [(LayerSlot(0), 1), (LayerSlot(slot), entries)].into_iter();
    let largest = layers((1 << 21) - 1, 1 << 26);
    assert!(check(TreeSlot((1 << 20) - 1), (1 << 26) - 2, largest).is_ok());
    let refused = |slot, own, layers| check(TreeSlot(slot), own, layers).unwrap_err();
    assert!(matches!(refused(1 << 20, 1, layers(1, 1)), AddTreeError::NoSuchTreeSlot(TreeSlot(0x10_0000))));
    assert!(matches!(refused(1, (1 << 26) - 1, layers(1, 1)), AddTreeError::TooManyDirectories(_)));
    assert!(matches!(refused(1, 1, layers(1 << 21, 1)), AddTreeError::NoSuchLayerSlot(_)));
    let entries = (1 << 26) + 1;
    match refused(1, 1, layers(1, entries)) {
        AddTreeError::TooManyEntries { position: 1, entries: found } => assert_eq!(found, entries),
        other => unreachable!("{other}"),
    }
}
