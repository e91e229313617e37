//! Against overlayfs itself. Needs root; does nothing without.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, XattrFlags, mknodat, setxattr};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use testdata::image::Entry;

use super::{merge, merge_below, walk};
use crate::content::tree::{Below, InodeKind, OverlayNamespace, Tree};

/// Writes a tree to a directory, its attributes for overlayfs included.
fn materialise(tree: &Tree, directory: &Path) {
    for (path, index) in walk(tree) {
        let at = directory.join(std::ffi::OsStr::from_bytes(&path));
        let inode = tree.inode(index);
        match inode.kind {
            InodeKind::Directory if path.is_empty() => {}
            InodeKind::Directory => fs::create_dir(&at).unwrap(),
            InodeKind::Regular => fs::write(&at, vec![0; inode.size as usize]).unwrap(),
            InodeKind::Char => {
                let device = rustix::fs::makedev(inode.device.0, inode.device.1);
                mknodat(rustix::fs::CWD, &at, FileType::CharacterDevice, Mode::empty(), device).unwrap();
            }
            kind => panic!("{kind:?} is not in these tests"),
        }
        for (name, value) in tree.xattrs(index) {
            setxattr(&at, name, value, XattrFlags::empty()).unwrap();
        }
    }
}

/// Paths with type and size, as `find` and `ls` see them. Everything that is listed must be there.
fn listing(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta =
                fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let size = if meta.is_file() { meta.size() } else { 0 };
            all.push(format!(
                "{} {:o} {size}",
                path.strip_prefix(root).unwrap().display(),
                meta.mode() >> 12
            ));
            if meta.is_dir() {
                directories.push(path);
            }
        }
    }
    all.sort();
    all
}

fn file(path: &str, size: usize) -> Entry {
    Entry::file(path, vec![0; size])
}

#[test]
fn two_runs_under_overlayfs_are_one_tree() {
    if !testdata::need::available(&[testdata::need::Need::Root]) {
        return;
    }
    let lower = vec![
        vec![
            file("keep", 1),
            file("gone", 1),
            file("d/a", 1),
            file("d/b", 1),
            file("r/old", 1),
            file("f", 1),
        ],
        vec![file("o/old", 1), file("o/s/deep", 1), file("x/y/z", 1), file("swap/in", 1), file("n/low", 1)],
    ];
    let upper = vec![
        // Whiteouts of what the lower run has, what this run has, and what nobody has.
        vec![Entry::whiteout("gone"), Entry::whiteout("d/a"), Entry::whiteout("nobody"), file("new/f", 2)],
        vec![Entry::whiteout("new/f"), file("new/g", 2), Entry::whiteout("new/h")],
        // Replaced, opaque, and changed from one type into another and back.
        vec![
            Entry::whiteout("r"),
            file("r/new", 3),
            Entry::opaque("o"),
            file("o/new", 3),
            file("swap", 3),
            file("f/dir", 3),
        ],
        vec![file("swap/again", 4), Entry::whiteout("x/y"), file("n/up", 4)],
        vec![file("x/y/later", 5), Entry::opaque("n/sub"), file("n/sub/f", 5)],
    ];
    let whole = merge(&[lower.clone(), upper.clone()].concat());
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    for name in ["lower", "upper", "whole", "merged"] {
        fs::create_dir(at(name)).unwrap();
    }
    materialise(&merge(&lower), &at("lower"));
    materialise(&merge_below(&upper, Below::Layers(OverlayNamespace::Trusted)).unwrap(), &at("upper"));
    materialise(&whole, &at("whole"));
    let options = format!("lowerdir={}:{},xino=on", at("upper").display(), at("lower").display());
    let options = std::ffi::CString::new(options).unwrap();
    if let Err(error) =
        mount("overlay", at("merged"), "overlay", MountFlags::RDONLY, Some(options.as_c_str()))
    {
        // Root in a container may not be allowed to.
        assert!(matches!(error, rustix::io::Errno::PERM | rustix::io::Errno::NODEV), "{error}");
        return;
    }
    let merged = std::panic::catch_unwind(|| listing(&at("merged")));
    unmount(at("merged"), UnmountFlags::empty()).unwrap();
    assert_eq!(merged.unwrap(), listing(&at("whole")));
}
