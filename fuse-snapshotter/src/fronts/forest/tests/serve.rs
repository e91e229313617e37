//! Answers to what the kernel asks.

use std::sync::Arc;

use testdata::image::Entry;

use super::{Rig, add_tree, at, merge, names};
use crate::content::tree::InodeKind;
use crate::fronts::forest::error::FsError;
use crate::fronts::forest::file_system::Forest;
use crate::fronts::forest::inode_number::{ROOT, TreeSlot};
use crate::fronts::forest::operation_counts::Operation;

#[test]
fn extended_attributes_are_declined_only_where_there_will_never_be_any() {
    let rig = Rig::new();
    let plain = rig.layer(&[Entry::file("f", "x")]);
    let rich = rig.layer(&[Entry::file("f", "x").xattr("user.a", "1").xattr("user.b", "")]);
    let single = |made: &super::Made| Forest::single(merge(&[made]), vec![Arc::clone(&made.lazy)]).unwrap();
    assert!(!single(&plain).serves_xattrs() && single(&rich).serves_xattrs());
    let forest = Forest::new();
    assert!(forest.serves_xattrs());
    add_tree(&forest, 1, "plain", &[(1, &plain)]);
    add_tree(&forest, 2, "rich", &[(2, &rich)]);
    let (none, some) = (at(&forest, "plain/f").unwrap().number, at(&forest, "rich/f").unwrap().number);
    assert!(matches!(forest.getxattr(none, b"user.a"), Err(FsError::NoAttribute)));
    assert!(forest.listxattr(none).unwrap().is_empty());
    assert_eq!(forest.getxattr(some, b"user.a").unwrap(), b"1");
    assert_eq!(forest.getxattr(some, b"user.b").unwrap(), b"");
    assert_eq!(forest.listxattr(some).unwrap(), b"user.a\0user.b\0");
    for number in [ROOT, at(&forest, "plain/.soci-snapshotter").unwrap().number] {
        assert!(matches!(forest.getxattr(number, b"user.a"), Err(FsError::NoAttribute)));
        assert!(forest.listxattr(number).unwrap().is_empty());
    }
}

#[tokio::test]
async fn wrong_questions_get_errors() {
    let rig = Rig::new();
    let made = rig.layer(&[Entry::dir("d"), Entry::file("f", "text"), Entry::symlink("l", "d")]);
    let forest = Forest::new();
    add_tree(&forest, 1, "tree", &[(1, &made)]);
    let number = |path: &str| at(&forest, path).unwrap().number;
    let (root, directory, file) = (number("tree"), number("tree/d"), number("tree/f"));
    let state = number("tree/.soci-snapshotter/layers.json");
    for (parent, name, expected) in [
        (file, "x", FsError::NotDirectory),
        (state, "x", FsError::NotDirectory),
        (directory, "x", FsError::NotFound),
        // Only the root of a tree has it.
        (directory, ".soci-snapshotter", FsError::NotFound),
        (ROOT, ".soci-snapshotter", FsError::NotFound),
        (ROOT, "\u{fffd}", FsError::NotFound),
        (7 << 26 | 1, "x", FsError::Stale),
        (0, "x", FsError::Stale),
        (u64::MAX, "x", FsError::Stale),
    ] {
        let error = forest.lookup(parent, name.as_bytes()).unwrap_err();
        assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&expected), "{parent:#x} {name}");
    }
    assert!(matches!(forest.lookup(ROOT, b"\xff"), Err(FsError::NotFound)));
    for number in [ROOT, root, directory, state - 1, number("tree/.soci-snapshotter")] {
        assert!(matches!(forest.read(number, 0, 1).await, Err(FsError::IsDirectory | FsError::Stale)));
        assert!(matches!(forest.readlink(number), Err(FsError::Invalid | FsError::Stale)));
    }
    assert!(matches!(forest.list(file, 0, |_, _| false), Err(FsError::NotDirectory)));
    assert!(matches!(forest.list(state, 0, |_, _| false), Err(FsError::NotDirectory)));
    assert!(matches!(forest.read(number("tree/l"), 0, 1).await, Err(FsError::Invalid)));
    assert_eq!(forest.readlink(number("tree/l")).unwrap(), b"d");
    assert_eq!(forest.read(file, 2, 100).await.unwrap(), b"xt");
    assert_eq!(forest.read(file, u64::MAX, 100).await.unwrap(), b"");
}

#[test]
fn listings_go_on_where_they_stopped() {
    let rig = Rig::new();
    let made = rig.layer(&(0..5).map(|i| Entry::file(format!("f{i}"), "")).collect::<Vec<_>>());
    let forest = Forest::new();
    for slot in 1..4 {
        add_tree(&forest, slot, &format!("tree{slot}"), &[(1, &made)]);
    }
    for (path, expected) in [("", 3), ("tree1", 5), ("tree1/.soci-snapshotter", 2)] {
        let directory = at(&forest, path).unwrap().number;
        let mut found = Vec::new();
        // One by one, as with the smallest of buffers.
        loop {
            let (mut taken, mut more) = (false, false);
            forest
                .list(directory, found.len(), |name, _| {
                    more = taken;
                    if !taken {
                        found.push(String::from_utf8(name.to_vec()).unwrap());
                    }
                    std::mem::replace(&mut taken, true)
                })
                .unwrap();
            if !more {
                break;
            }
        }
        assert_eq!(found, names(&forest, path));
        assert_eq!(found.len(), expected, "{path}");
    }
}

#[test]
fn the_root_of_a_forest_is_roots_alone() {
    let forest = Forest::new();
    let root = forest.getattr(ROOT).unwrap();
    assert_eq!((root.kind, root.mode, root.uid, root.gid), (InodeKind::Directory, 0o700, 0, 0));
    assert!(names(&forest, "").is_empty());
    assert!(forest.is_volatile(ROOT));
    assert_eq!((forest.statfs(ROOT).files, forest.statfs(ROOT).blocks), (0, 0));
}

#[test]
fn totals_are_those_of_the_tree() {
    let rig = Rig::new();
    let (one, two) = (rig.layer(&[Entry::file("f", vec![1; 5000])]), rig.layer(&[Entry::file("g", "x")]));
    let forest = Forest::new();
    add_tree(&forest, 1, "one", &[(1, &one)]);
    add_tree(&forest, 2, "two", &[(2, &two)]);
    let totals = |path: &str| {
        let stats = forest.statfs(at(&forest, path).unwrap().number);
        (stats.files, stats.blocks)
    };
    assert_eq!((totals("one"), totals("one/f"), totals("two")), ((2, 2), (2, 2), (2, 1)));
    assert_eq!(totals(""), (4, 2));
}

#[tokio::test]
async fn operations_are_counted_by_tree() {
    let rig = Rig::new();
    let made = rig.layer(&[Entry::file("f", "x"), Entry::symlink("l", "f")]);
    let forest = Forest::new();
    add_tree(&forest, 1, "one", &[(1, &made)]);
    add_tree(&forest, 2, "two", &[(2, &made)]);
    let root = at(&forest, "one").unwrap().number;
    let (file, link) = (forest.lookup(root, b"f").unwrap(), forest.lookup(root, b"l").unwrap());
    let _ = forest.lookup(root, b"nothing");
    forest.getattr(file.number).unwrap();
    forest.open(file.number).unwrap();
    forest.read(file.number, 0, 1).await.unwrap();
    forest.read(file.number, 0, 1).await.unwrap();
    forest.readlink(link.number).unwrap();
    forest.list(root, 0, |_, _| false).unwrap();
    let _ = forest.getxattr(file.number, b"user.a");
    forest.listxattr(root).unwrap();
    let counts = |slot| {
        let counts = forest.operations(TreeSlot(slot)).unwrap();
        counts.into_iter().map(|(operation, count)| (operation.metric().name(), count)).collect::<Vec<_>>()
    };
    let expected = [
        ("node.Getattr", 1),
        ("node.Getxattr", 1),
        ("node.Listxattr", 1),
        ("node.Lookup", 3),
        ("node.Open", 1),
        ("node.Readdir", 1),
        ("node.Readlink", 1),
        ("file.Read", 2),
    ];
    assert_eq!(counts(1), expected);
    assert!(counts(2).iter().all(|(_, count)| *count == 0));
    assert!(forest.operations(TreeSlot(3)).is_none());
    let keys = Operation::ALL.map(|operation| operation.failure_metric().name());
    assert!(keys.iter().all(|key| key.starts_with("fuse_") && key.ends_with("_failure_count")));
}

#[test]
fn failures_are_counted_for_the_layer_they_are_about() {
    let rig = Rig::new();
    let made = rig.layer(&[Entry::file("f", "text")]);
    let metrics = crate::base::metrics::Metrics::new();
    let forest = Forest::new().with_metrics(Arc::clone(&metrics));
    add_tree(&forest, 1, "tree", &[(1, &made)]);
    // The layer's own handle is another registry's here, so that what has no layer is told apart from it.
    let file = at(&forest, "tree/f").unwrap().number;
    let error = FsError::Fetch(crate::content::FetchError::Cache(Arc::new(std::io::Error::other("full"))));
    forest.count_failure(file, Operation::Read, &error);
    forest.count_failure(ROOT, Operation::Lookup, &FsError::Stale);
    let text = metrics.render();
    for line in [
        "soci_fs_operation_count{layer=\"\",operation_type=\"fuse_node_lookup_failure_count\"} 1",
        "soci_fs_operation_count{layer=\"\",operation_type=\"fuse_failure_state\"} 1",
        "soci_snapshotter_fetch_errors_total{kind=\"cache\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("fuse_file_read_failure_count"), "{text}");
    let text = rig.metrics().render();
    let digest = made.lazy.digest();
    let line = format!(
        "soci_fs_operation_count{{layer=\"{digest}\",operation_type=\"fuse_file_read_failure_count\"}} 1"
    );
    assert!(text.contains(&line), "{text}");
}
