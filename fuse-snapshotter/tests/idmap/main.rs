//! Containers in user namespaces, with and without the kernel's help: what their overlays show. Needs root and
//! `/dev/fuse`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use fuse_snapshotter::snapshotter::IdMapping;
use rig::{MAPPED, Rig, alone};
use testdata::expected::Tree;
use testdata::walk::{View, compare};

/// What a container sees of what another one sees whose ids are not mapped.
fn mapped(plain: &Tree) -> Tree {
    let mut expected = plain.clone();
    for node in expected.0.values_mut() {
        for id in [&mut node.uid, &mut node.gid] {
            *id = if *id < 65_536 { *id + 100_000 } else { 65_534 };
        }
        if let Some(value) = node.xattrs.get_mut(&b"security.capability"[..]) {
            assert_eq!(value.len(), 20);
            // Version 3, with the id of the root.
            value[3] = 3;
            value.extend(100_000u32.to_le_bytes());
        }
    }
    expected
}

fn check(rig: &Rig, key: &str, expected: &Tree) {
    let merged = rig.mount(key);
    let mut view = View::of(merged.path());
    // The root is the container's own upper directory, made when it was.
    let (root, expected_root) = (view.tree.0.get_mut(&b""[..]).unwrap(), expected.get("").unwrap());
    root.mtime = expected_root.mtime;
    compare(&view.tree, expected).unwrap();
    view.check_one_device().unwrap();
}

/// The directories made for mapped containers, and what is in them.
fn made(rig: &Rig) -> BTreeMap<String, Vec<String>> {
    let names = |path: PathBuf| {
        let names =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let snapshots = rig.snapshots();
    let made = names(snapshots.clone()).into_iter().filter(|name| name.contains('_'));
    made.map(|name| (name.clone(), names(snapshots.join(name)))).collect()
}

#[test]
fn a_container_sees_its_own_owners_and_all_else_unchanged() {
    let Some(_alone) = alone() else { return };
    for how in [IdMapping::Auto, IdMapping::Copy] {
        let mut rig = Rig::new(how);
        rig.prepare("plain", &[]).unwrap();
        let plain = View::of(rig.mount("plain").path()).tree;
        assert!(plain.get("lazy/capable").unwrap().xattrs.contains_key(&b"security.capability"[..]));
        assert!(plain.get("directory/capable").unwrap().xattrs.contains_key(&b"security.capability"[..]));
        assert!(plain.hard_links().len() >= 2);
        let expected = mapped(&plain);
        for key in ["one", "two"] {
            rig.prepare(key, MAPPED).unwrap();
            check(&rig, key, &expected);
        }
        // Those beside them see what they saw.
        assert_eq!(View::of(rig.mount("plain").path()).tree, plain);
        let copies = made(&rig).values().filter(|names| names.contains(&"copy".to_owned())).count();
        assert_eq!(copies, if how == IdMapping::Copy { 2 } else { 0 });

        // What a process that was killed leaves: a copy that is not whole, and one that was not begun.
        let inode = |rig: &Rig| fs::metadata(rig.mount("one").path().join("lazy/capable")).unwrap().ino();
        let before = inode(&rig);
        rig.stop();
        if how == IdMapping::Copy {
            let copies = made(&rig).into_iter().filter(|(_, names)| names.contains(&"copy".to_owned()));
            let copies: Vec<_> = copies.map(|(name, _)| rig.snapshots().join(name)).collect();
            fs::rename(copies[0].join("copy"), copies[0].join("partial")).unwrap();
            fs::remove_file(copies[0].join("partial/directory/file")).unwrap();
            fs::remove_dir_all(copies[1].join("copy")).unwrap();
        }
        rig.start(how);
        // Whoever comes second waits for the first.
        let mounts = rig.mounts_at_once("one", 4);
        assert!(mounts.windows(2).all(|pair| pair[0] == pair[1]));
        for key in ["one", "two"] {
            check(&rig, key, &expected);
        }
        assert!(made(&rig).values().all(|names| !names.contains(&"partial".to_owned())));
        // Overlayfs notes such numbers in the upper directory.
        assert_eq!(inode(&rig), before);

        // With what was made the other way.
        rig.stop();
        rig.start(if how == IdMapping::Copy { IdMapping::Auto } else { IdMapping::Copy });
        check(&rig, "one", &expected);
        for key in ["one", "two"] {
            rig.remove(key);
        }
        rig.cleanup();
        assert!(made(&rig).is_empty());
        assert_eq!(View::of(rig.mount("plain").path()).tree, plain);
    }
}

#[test]
fn containers_with_one_mapping_share_files_and_others_do_not() {
    let Some(_alone) = alone() else { return };
    let rig = Rig::new(IdMapping::Copy);
    let other = &["0:300000:65536", "0:300000:65536"];
    for (key, mapping) in [("plain", &[][..]), ("one", MAPPED), ("two", MAPPED), ("other", other)] {
        rig.prepare(key, mapping).unwrap();
    }
    let owner_and_inode = |key: &str| {
        let metadata = fs::metadata(rig.mount(key).path().join("lazy/capable")).unwrap();
        (metadata.uid(), metadata.ino())
    };
    let (one, two, other) = (owner_and_inode("one"), owner_and_inode("two"), owner_and_inode("other"));
    assert_eq!(one, two);
    assert_eq!((one.0, other.0), (101_000, 301_000));
    assert_eq!(owner_and_inode("plain").0, 1000);
    assert!(one.1 != other.1 && one.1 != owner_and_inode("plain").1);
    assert!(rig.mapped_numbers() > 1);
    for key in ["one", "other"] {
        rig.remove(key);
    }
    rig.cleanup();
    assert_eq!(owner_and_inode("two"), two);
    rig.remove("two");
    rig.cleanup();
    // The one that keeps the space from becoming empty.
    assert_eq!(rig.mapped_numbers(), 1);
    assert!(rig.prepare("wrong", &["0:0:10,5:100:1", "0:0:1"]).is_err());
}

/// Descriptors by what they are, children, and mounts.
fn held(rig: &Rig) -> (usize, usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let children = tasks.map(|task| {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        children.split_whitespace().count()
    });
    let children = children.sum();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = rig.snapshots().to_str().unwrap().to_owned();
    (descriptors, children, mounts.lines().filter(|line| line.contains(&root)).count())
}

#[test]
fn nothing_is_left_after_fifty_rounds() {
    let Some(_alone) = alone() else { return };
    for how in [IdMapping::Auto, IdMapping::Copy] {
        let rig = Rig::new(how);
        let mut before = None;
        for round in 0..50 {
            let key = format!("container-{round}");
            rig.prepare(&key, MAPPED).unwrap();
            let merged = rig.mount(&key);
            let metadata = fs::symlink_metadata(merged.path().join("lazy/device")).unwrap();
            assert!(metadata.file_type().is_char_device() && metadata.uid() == 100_000);
            drop(merged);
            rig.remove(&key);
            rig.cleanup();
            assert!(made(&rig).is_empty());
            let now = held(&rig);
            // The first round opens what stays open.
            assert_eq!(*before.get_or_insert(now), now, "round {round}");
        }
        assert_eq!(rig.mapped_numbers(), 1);
    }
}
