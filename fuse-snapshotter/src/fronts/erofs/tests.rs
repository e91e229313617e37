//! Images against the kernel, which is the one that matters, and against what FUSE shows of the same trees.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use testdata::expected::merge_entries;
use testdata::image::{Entry, Kind, Texture};
use testdata::need::{Need, available, can_mount_erofs};
use testdata::walk::{View, compare};

use super::error::ErofsError;
use super::mount::mount_tree;
use crate::content::tree::tests::random;
use crate::content::tree::{Below, OverlayNamespace, Tree};
use crate::fronts::forest::Forest;
use crate::fronts::forest::tests::{Made, Rig, merge};
use crate::fronts::fuse::{FuseOptions, mount_forest};
use crate::fronts::mounted::Mounted;

/// cap_net_raw+ep. The kernel tells no other value than one that makes sense.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn can_mount() -> bool {
    available(&[Need::Root, Need::Fuse]) && can_mount_erofs()
}

/// Layers mounted in a directory of their own.
struct MountedTree {
    mount: Option<Mounted>,
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl MountedTree {
    fn new(tree: &Tree, layers: &[Made]) -> Result<Self, ErofsError> {
        let (directory, runtime) = (tempfile::tempdir().unwrap(), tokio::runtime::Runtime::new().unwrap());
        let (image, target) = (directory.path().join("image"), directory.path().join("mnt"));
        std::fs::create_dir(&target).unwrap();
        let lazy = layers.iter().map(|made| Arc::clone(&made.lazy)).collect();
        let mount = mount_tree(tree, lazy, &image, &target, 2, runtime.handle().clone())?;
        Ok(Self { mount: Some(mount), directory, runtime })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }
}

impl Drop for MountedTree {
    fn drop(&mut self) {
        drop(self.mount.take());
    }
}

fn made(layers: &[Vec<Entry>]) -> (Rig, Vec<Made>) {
    let rig = Rig::new();
    let layers = layers.iter().map(|entries| rig.layer(entries)).collect();
    (rig, layers)
}

fn merged(layers: &[Made], below: Below) -> Tree {
    Tree::merge(&layers.iter().map(|made| &made.ztoc).collect::<Vec<_>>(), below).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_are_what_the_oracle_expects(mut layers in random::layers()) {
        if can_mount() {
            for entry in layers.iter_mut().flatten() {
                // Of pipes and the like the kernel lists such attributes, but does not tell them.
                if !matches!(entry.kind, Kind::File(_) | Kind::Dir) {
                    entry.xattrs.retain(|name, _| !name.starts_with(b"user."));
                }
                if let Some(value) = entry.xattrs.get_mut(&b"security.capability"[..]) {
                    *value = CAPABILITY.to_vec();
                }
            }
            let (_rig, made) = made(&layers);
            let mounted = MountedTree::new(&merge(&made.iter().collect::<Vec<_>>()), &made).unwrap();
            let expected = merge_entries(layers.iter().map(Vec::as_slice));
            let view = View::of(&mounted.path());
            compare(&view.tree, &expected).unwrap();
            view.check_links().unwrap();
        }
    }
}

/// What stat(2), readlink(2) and listxattr(2) say of a file, and its content.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    /// The size of a directory means nothing.
    size: Option<u64>,
    blocks: Option<u64>,
    block_size: u64,
    times: [(i64, i64); 3],
    links: u64,
    device: u64,
    target: Option<PathBuf>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    content: Option<Vec<u8>>,
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut names, mut value) = (vec![0; 65536], vec![0; 65536]);
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value);
            (name.to_vec(), value[..length.unwrap()].to_vec())
        })
        .collect()
}

fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut seen, mut pending) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let stat = std::fs::symlink_metadata(&full).unwrap();
        if stat.is_dir() {
            for entry in std::fs::read_dir(&full).unwrap() {
                let entry = entry.unwrap();
                assert_eq!(
                    std::os::unix::fs::DirEntryExt::ino(&entry),
                    std::fs::symlink_metadata(entry.path()).unwrap().ino()
                );
                pending.push(path.join(entry.file_name()));
            }
        }
        let entry = Seen {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            size: (!stat.is_dir()).then(|| stat.size()),
            blocks: (!stat.is_dir()).then(|| stat.blocks()),
            block_size: stat.blksize(),
            times: [
                (stat.mtime(), stat.mtime_nsec()),
                (stat.atime(), stat.atime_nsec()),
                (stat.ctime(), stat.ctime_nsec()),
            ],
            links: stat.nlink(),
            device: stat.rdev(),
            target: stat.is_symlink().then(|| std::fs::read_link(&full).unwrap()),
            xattrs: xattrs(&full),
            content: stat.is_file().then(|| std::fs::read(&full).unwrap()),
        };
        assert!(seen.insert(path, entry).is_none());
    }
    seen
}

/// Everything that may be odd about a layer.
fn odd() -> Vec<Entry> {
    let mut entries = vec![
        Entry::dir("./").mode(0o1751).owner(3, 4).mtime(1_600_000_000, 987_654_321),
        Entry::dir("d").mode(0o2770),
        Entry::made("!before-the-dots", Texture::Text, 1, 1),
        Entry::made("-between-names", Texture::Text, 2, 4095).mtime(-1, 999_999_999),
        Entry::made("block", Texture::Binary, 3, 4096).mtime(-10_000_000_000, 1),
        Entry::made("block-and-one", Texture::Binary, 4, 4097).mtime(20_000_000_000, 1),
        Entry::made("large", Texture::Binary, 5, 3_000_001).owner(4_294_967_294, 70_000),
        Entry::file("empty", "").mode(0o4755),
        Entry::symlink("link", "d"),
        Entry::symlink("long-link", format!("/{}", "x".repeat(4000))),
        Entry::symlink("longest-link", "x".repeat(4095)),
        Entry::hard_link("d/again", "large"),
        Entry::char_device("char", 1, 3),
        Entry::block_device("block-device", 259, 70_000).mode(0o660),
        Entry::fifo("fifo"),
        Entry::file("attributes", "x")
            .xattr("user.a", "1")
            .xattr("user.empty", "")
            .xattr("trusted.t", "2")
            .xattr("security.capability", CAPABILITY)
            .xattr("user.large", vec![7; 60_000])
            .xattr("user.long", vec![8; 3]),
        Entry::symlink("link-with-attributes", "y".repeat(3000)).xattr("trusted.large", vec![9; 2000]),
        Entry::dir("many").xattr("user.directory", vec![1; 500]),
        Entry::dir("full"),
        Entry::dir("empty-directory"),
    ];
    for number in 0..3000 {
        entries.push(Entry::file(format!("many/{number}-{}", "n".repeat(number % 240)), ""));
    }
    for number in 0..40 {
        entries.push(Entry::file(format!("full/{number:02}{}", "x".repeat(253)), format!("{number}")));
    }
    // Directories of all sizes around what fits behind an inode.
    for number in 0..20 {
        for name in 0..(230 + number) {
            entries.push(Entry::dir(format!("around/{number}/{name:05}")));
        }
    }
    entries
}

#[test]
fn everything_is_as_fuse_shows_it() {
    if !can_mount() {
        return;
    }
    let (_rig, made) = made(&[odd(), vec![Entry::whiteout("many/7-nnnnnnn"), Entry::file("many/new", "x")]]);
    let tree = merged(&made, Below::Nothing);
    let mounted = MountedTree::new(&tree, &made).unwrap();
    let other = mounted.directory.path().join("fuse");
    std::fs::create_dir(&other).unwrap();
    let forest = Forest::single(tree, made.iter().map(|made| Arc::clone(&made.lazy)).collect()).unwrap();
    let options = FuseOptions { threads: 2, allow_other: true };
    let fuse = mount_forest(&Arc::new(forest), &other, options, mounted.runtime.handle().clone()).unwrap();
    let (found, expected) = (see(&mounted.path()), see(&other));
    assert_eq!(found.len(), expected.len());
    for (path, expected) in &expected {
        assert!(found.get(path) == Some(expected), "{}: {:?}\n{expected:?}", path.display(), found.get(path));
    }
    // Names that are not there, before, between and behind those that are.
    for name in ["", " ", "!", "a", "many/0", "many/zzz", "full/00", "around/0/x", "zzz", "empty-directory/x"]
    {
        let missing = std::fs::symlink_metadata(mounted.path().join(format!("{name}~"))).unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound, "{name}");
    }
    drop(fuse);
    if available(&[Need::Program("fsck.erofs", "erofs-utils")]) {
        // It wants to see the devices, but reads no contents unless it is to extract them.
        let mut fsck = std::process::Command::new("fsck.erofs");
        for index in 0..=made.len() {
            let device = mounted.directory.path().join(index.to_string());
            std::fs::copy(mounted.directory.path().join("image"), &device).unwrap();
            fsck.arg(format!("--device={}", device.display()));
        }
        let output = fsck.arg(mounted.directory.path().join("image")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn marks_of_overlayfs_are_shown() {
    if !can_mount() {
        return;
    }
    let layer = vec![
        Entry::dir("opaque"),
        Entry::opaque("opaque"),
        Entry::dir("directory"),
        Entry::whiteout("directory/gone"),
        Entry::whiteout("gone"),
    ];
    let (_rig, made) = made(&[layer]);
    let tree = merged(&made, Below::Layers(OverlayNamespace::Trusted));
    let mounted = MountedTree::new(&tree, &made).unwrap();
    let at = |path: &str| mounted.path().join(path);
    let whiteout = std::fs::symlink_metadata(at("directory/gone")).unwrap();
    assert_eq!((whiteout.mode(), whiteout.rdev()), (0o020_000, 0));
    assert_eq!(xattrs(&at("opaque")), [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]);
    assert_eq!(xattrs(&at("directory")), [(b"trusted.overlay.origin".to_vec(), Vec::new())]);
}

#[test]
fn what_the_format_does_not_know_is_refused() {
    if !can_mount() {
        return;
    }
    for entry in
        [Entry::file("file", "x").xattr("system.odd", "1"), Entry::file("file", "x").xattr("odd", "1")]
    {
        let (_rig, made) = made(&[vec![entry]]);
        let refused = MountedTree::new(&merged(&made, Below::Nothing), &made);
        assert!(matches!(refused, Err(ErofsError::Inexpressible(_))), "{:?}", refused.err());
    }
    // A tree of other layers.
    let (_rig, made) = made(&[vec![Entry::file("file", "x")], vec![Entry::dir("a"), Entry::dir("b")]]);
    let refused = MountedTree::new(&merged(&made[..1], Below::Nothing), &made[1..]);
    assert!(matches!(refused, Err(ErofsError::Inexpressible(_))), "{:?}", refused.err());
}

#[test]
fn it_ends_with_its_last_user() {
    if !can_mount() {
        return;
    }
    let (_rig, made) = made(&[vec![Entry::made("file", Texture::Random, 1, 300_000)]]);
    let mut mounted = MountedTree::new(&merged(&made, Below::Nothing), &made).unwrap();
    let mount = mounted.mount.take().unwrap();
    assert!(!mount.is_finished());
    let open = std::fs::File::open(mounted.path().join("file")).unwrap();
    rustix::mount::unmount(mounted.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    // Whoever has a file open reads it.
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut &open, &mut content).unwrap();
    assert_eq!(content.len(), 300_000);
    assert!(!mount.is_finished());
    drop(open);
    while !mount.is_finished() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Where the kernel has its limits of read-ahead from EROFS.
fn read_aheads() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/sys/class/bdi").unwrap().map(|entry| entry.unwrap());
    all.filter(|entry| entry.file_name().as_bytes().starts_with(b"erofs"))
        .map(|entry| entry.path().join("read_ahead_kb"))
        .collect()
}

#[test]
fn an_error_in_the_middle_of_a_large_read_makes_no_zeros() {
    if !can_mount() {
        return;
    }
    const SIZE: usize = 12 << 20;
    let entry = Entry::made("file", Texture::Random, 1, SIZE as u64);
    let expected = entry.content().unwrap().to_vec();
    let (_rig, made) = made(&[vec![entry]]);
    // From the middle on, the layer is another one.
    let mut blob = std::fs::read(&made[0].blob).unwrap();
    let middle = blob.len() / 2;
    blob[middle..].iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(&made[0].blob, blob).unwrap();
    let before = read_aheads();
    let mounted = MountedTree::new(&merged(&made, Below::Nothing), &made).unwrap();
    let path = mounted.path().join("file");
    // So that a read is more than one FUSE request. Mounts of other tests may be among them, which does not matter.
    let new: Vec<_> = read_aheads().into_iter().filter(|path| !before.contains(path)).collect();
    assert!(!new.is_empty());
    for setting in new {
        let _ = std::fs::write(setting, "8192");
    }
    let (mut right, mut failed) = (0, 0);
    for (offset, expected) in (0..).step_by(65_536).zip(expected.chunks(65_536)) {
        // Anew each time, since reading on would go on with what was read ahead.
        let (file, mut buffer) = (std::fs::File::open(&path).unwrap(), vec![0; expected.len()]);
        match std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, offset) {
            Ok(()) => {
                assert!(buffer == expected, "{offset}");
                right += 1;
            }
            Err(error) => {
                assert_eq!(
                    error.raw_os_error(),
                    Some(rustix::io::Errno::IO.raw_os_error()),
                    "{offset}: {error}"
                );
                failed += 1;
            }
        }
    }
    assert!(right > 20 && failed > 20, "{right} {failed}");
    // A read from front to back ends where the error is.
    let mut read = Vec::new();
    let mut file = std::fs::File::open(&path).unwrap();
    assert!(std::io::Read::read_to_end(&mut file, &mut read).is_err());
    assert!(expected.starts_with(&read));
}
