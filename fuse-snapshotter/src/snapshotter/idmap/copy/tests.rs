//! Copies of what layers may hold. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use testdata::need::{Need, available};
use testdata::walk::{View, compare};

use super::*;
use crate::fronts::forest::IdRange;
use crate::image::unpack::remove_tree;

fn ids() -> IdMaps {
    let range = |host| vec![IdRange { container: 0, host, size: 65_536 }];
    IdMaps { uids: range(100_000), gids: range(200_000) }
}

fn wanted() -> bool {
    false
}

struct Rig(tempfile::TempDir);

impl Rig {
    fn new() -> Option<Self> {
        available(&[Need::Root]).then(|| {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("source")).unwrap();
            fs::create_dir(directory.path().join("target")).unwrap();
            Self(directory)
        })
    }

    fn source(&self) -> std::path::PathBuf {
        self.0.path().join("source")
    }

    fn target(&self) -> std::path::PathBuf {
        self.0.path().join("target")
    }

    fn copy(&self) -> Result<(), CopyError> {
        copy(&self.source(), &self.target(), &ids(), &wanted)
    }
}

#[test]
fn all_but_the_owners_stays() {
    let Some(rig) = Rig::new() else { return };
    let (source, target) = (rig.source(), rig.target());
    let make = |path: &str, mode: u32, owner: u32| {
        fs::write(source.join(path), path).unwrap();
        std::os::unix::fs::chown(source.join(path), Some(owner), Some(owner + 1)).unwrap();
        fs::set_permissions(source.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(source.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    let node = |path: &str, kind, device| {
        rustix::fs::mknodat(CWD, source.join(path), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    fs::create_dir_all(source.join("d/e")).unwrap();
    make("setuid", 0o6755, 5);
    make("beyond", 0o600, 70_000);
    make("d/linked", 0o604, 7);
    fs::hard_link(source.join("d/linked"), source.join("d/e/again")).unwrap();
    fs::hard_link(source.join("d/linked"), source.join("a")).unwrap();
    node("whiteout", FileType::CharacterDevice, 0);
    fs::hard_link(source.join("whiteout"), source.join("d/whiteout")).unwrap();
    node("device", FileType::BlockDevice, rustix::fs::makedev(8, 300));
    node("pipe", FileType::Fifo, 0);
    symlink("/etc/passwd", source.join("link")).unwrap();
    std::os::unix::fs::lchown(source.join("link"), Some(9), Some(9)).unwrap();
    symlink("d", source.join("link-to-directory")).unwrap();
    set("d", "trusted.overlay.opaque", b"y");
    set("d/e", "trusted.overlay.origin", b"");
    set("link", "trusted.of-the-link", b"1");
    set("device", "trusted.of-the-device", b"2");
    set("setuid", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    fs::set_permissions(source.join("d"), fs::Permissions::from_mode(0o3500)).unwrap();
    for path in ["link", "setuid", "d/e", "d", ""] {
        let time = Timespec { tv_sec: 1_000_000_007, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, source.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let mut expected = View::of(&source);
    rig.copy().unwrap();
    for (path, node) in &mut expected.tree.0 {
        let beyond = path == b"beyond";
        node.uid = if beyond { 65_534 } else { node.uid + 100_000 };
        node.gid = if beyond { 65_534 } else { node.gid + 200_000 };
        if let Some(value) = node.xattrs.get_mut(&b"security.capability"[..]) {
            value[3] = 3;
            value.extend(100_000u32.to_le_bytes());
        }
    }
    let found = View::of(&target);
    compare(&found.tree, &expected.tree).unwrap();
    assert_eq!(found.links, expected.links);
    assert!(found.tree.get("setuid").unwrap().xattrs.contains_key(&b"security.capability"[..]));
}

#[test]
fn holes_stay_holes() {
    let Some(rig) = Rig::new() else { return };
    let file = fs::File::create(rig.source().join("sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(b"in the middle", 1 << 29).unwrap();
    drop(file);
    rig.copy().unwrap();
    let copied = fs::File::open(rig.target().join("sparse")).unwrap();
    let metadata = copied.metadata().unwrap();
    assert_eq!(metadata.len(), 1 << 30);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut middle = [0; 13];
    copied.read_exact_at(&mut middle, 1 << 29).unwrap();
    assert_eq!(&middle, b"in the middle");
}

#[test]
fn content_is_copied_without_the_kernels_help() {
    let Some(rig) = Rig::new() else { return };
    let content: Vec<u8> = (0..3 * BUFFER as u32 + 7).map(|n| (n % 251) as u8).collect();
    fs::write(rig.source().join("file"), &content).unwrap();
    let open = |path: &Path| rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap();
    let walk = Walk {
        source: open(&rig.source()),
        target: open(&rig.target()),
        ids: &ids(),
        abandoned: &wanted,
        path: Vec::new(),
        links: HashMap::new(),
        xattr_names: Vec::new(),
        xattr_value: Vec::new(),
    };
    let (from, to) = (open(&rig.source().join("file")), fs::File::create(rig.target().join("file")).unwrap());
    let to = OwnedFd::from(to);
    walk.copy_by_hand(&from, &to, 0, content.len() as u64).unwrap();
    assert!(fs::read(rig.target().join("file")).unwrap() == content);
    assert_eq!(walk.copy_by_hand(&from, &to, 0, content.len() as u64 + 1), Err(Errno::IO));
}

#[test]
fn directories_may_be_deeper_than_paths_are_long() {
    // A little above what one path can name.
    const DEPTH: usize = 2100;
    let Some(rig) = Rig::new() else { return };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(rig.source(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, "d", flags, Mode::empty()).unwrap();
    }
    rig.copy().unwrap();
    let mut directory = rustix::fs::open(rig.target(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        directory = rustix::fs::openat(&directory, "d", flags, Mode::empty()).unwrap();
        assert_eq!(rustix::fs::fstat(&directory).unwrap().st_uid, 100_000);
    }
    let root = fs::File::open(rig.0.path()).unwrap();
    for name in ["source", "target"] {
        remove_tree(root.as_fd(), name.as_bytes()).unwrap();
    }
}

#[test]
fn what_nobody_wants_any_more_ends() {
    let Some(rig) = Rig::new() else { return };
    for n in 0..10 {
        fs::write(rig.source().join(n.to_string()), "x").unwrap();
    }
    let asked = Cell::new(0);
    let abandoned = || {
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    let error = copy(&rig.source(), &rig.target(), &ids(), &abandoned).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::Interrupted, "{error}");
    assert!(fs::read_dir(rig.target()).unwrap().count() < 10);
}

#[test]
fn an_error_names_the_path() {
    let Some(rig) = Rig::new() else { return };
    fs::create_dir(rig.source().join("d")).unwrap();
    fs::write(rig.source().join("d/file\n"), "x").unwrap();
    // Somebody else is there.
    fs::create_dir(rig.target().join("d")).unwrap();
    let error = rig.copy().unwrap_err().to_string();
    assert!(error.starts_with("cannot make the directory \"d\" for"), "{error}");
    fs::remove_dir(rig.target().join("d")).unwrap();
    let link = rig.source().join("elsewhere");
    symlink(rig.target(), &link).unwrap();
    assert!(copy(&link, &rig.target(), &ids(), &wanted).is_err(), "a link is not followed");
}
