//! The same archives through other programs: GNU tar, umoci, and the other two readers of tar headers here.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::process::Command;

use super::*;

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn pack(from: &Path, flags: &[&str]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("a.tar");
    run(Command::new("tar")
        .args(["--numeric-owner", "--sort=name"])
        .args(flags)
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(from)
        .arg("."));
    std::fs::read(archive).unwrap()
}

pub(super) fn gnu_tar(archive: &[u8]) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("a.tar"), archive).unwrap();
    run(Command::new("tar")
        .args([
            "--numeric-owner",
            "--same-owner",
            "--same-permissions",
            "--xattrs",
            "--xattrs-include=*",
            "-xf",
        ])
        .arg(place.path().join("a.tar"))
        .arg("-C")
        .arg(target.path()));
    target
}

fn owned(path: &Path, uid: u32, gid: u32, mode: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree with one of everything. What some formats cannot hold is left out where `plain`.
fn specimen(plain: bool) -> TempDir {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    owned(place.path(), 7, 8, 0o711);
    for (directory, mode) in [("d", 0o700), ("d/read-only", 0o555), ("tmp", 0o1777), ("setgid", 0o2775)] {
        std::fs::create_dir(at(directory)).unwrap();
        owned(&at(directory), 1000, 100, mode);
    }
    for (file, mode) in [
        ("setuid", 0o4755),
        ("both", 0o6711),
        ("secret", 0o000),
        ("setgid/f", 0o2640),
        ("d/read-only/f", 0o444),
    ] {
        std::fs::write(at(file), file.repeat(300)).unwrap();
        owned(&at(file), 1234, 4321, mode);
    }
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(
        at("large"),
        (0..5_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    std::fs::hard_link(at("large"), at("d/linked")).unwrap();
    std::fs::hard_link(at("empty"), at("tmp/linked")).unwrap();
    std::os::unix::fs::symlink("../large", at("d/symlink")).unwrap();
    std::os::unix::fs::symlink("/nowhere", at("dangling")).unwrap();
    std::os::unix::fs::lchown(at("dangling"), Some(5), Some(6)).unwrap();
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o622), 0).unwrap();
    owned(&at("fifo"), 3, 3, 0o622);
    if !plain {
        mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3))
            .unwrap();
        mknodat(CWD, at("disk"), FileType::BlockDevice, Mode::from_raw_mode(0o660), makedev(259, 70000))
            .unwrap();
        owned(&at("null"), 9, 9, 0o666);
        let long = format!("d/{}", ["component"; 20].join("/"));
        std::fs::create_dir_all(at(&long)).unwrap();
        std::fs::write(at(&format!("{long}/{}", "n".repeat(255))), "long").unwrap();
        std::os::unix::fs::symlink("t".repeat(300), at("long-link")).unwrap();
        std::fs::hard_link(at(&format!("{long}/{}", "n".repeat(255))), at("long-hard-link")).unwrap();
        std::fs::write(at("g\u{fc}n \\ \"\n"), "odd name").unwrap();
        let sparse = std::fs::File::create(at("sparse")).unwrap();
        for i in 0..40u64 {
            sparse.write_all_at(&[i as u8 + 1; 5000], i * 1_000_000).unwrap();
        }
        sparse.set_len(50_000_001).unwrap();
        std::fs::File::create(at("hole")).unwrap().set_len(3_000_000).unwrap();
        let set = |name: &str, key: &str, value: &[u8]| {
            rustix::fs::lsetxattr(at(name), key, value, XattrFlags::empty()).unwrap();
        };
        set("setuid", "user.comment", b"binary \0\n=\xff");
        set("setuid", "trusted.thing", b"t");
        set("d", "user.directory", b"d");
        set("dangling", "trusted.link", b"l");
        set("null", "trusted.device", b"n");
        set("both", "security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    // Last, and directories after what is in them.
    let paths: Vec<_> = tree(place.path()).into_keys().rev().collect();
    for (i, path) in paths.iter().enumerate() {
        let nanos = if plain { 0 } else { 123_456_789 };
        set_time(&place.path().join(std::ffi::OsStr::from_bytes(path)), 1_000_000_000 + i as i64, nanos);
    }
    if !plain {
        set_time(&at("empty"), -86_400, 250_000_000);
    }
    place
}

fn allocated(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

#[test]
fn same_as_gnu_tar() {
    if !is_root() {
        return;
    }
    let xattrs = ["--xattrs", "--xattrs-include=*"];
    let posix = |version: &'static str| vec!["--format=posix", "--sparse", version, xattrs[0], xattrs[1]];
    let cases = [
        (false, posix("--sparse-version=0.0")),
        (false, posix("--sparse-version=0.1")),
        (false, posix("--sparse-version=1.0")),
        (false, vec!["--format=posix", xattrs[0], xattrs[1]]),
        (false, vec!["--format=gnu", "--sparse"]),
        (false, vec!["--format=gnu"]),
        (false, vec!["--format=oldgnu", "--sparse"]),
        (true, vec!["--format=ustar"]),
        (true, vec!["--format=posix", "--absolute-names"]),
    ];
    for (plain, flags) in cases {
        let what = format!("{flags:?}");
        let specimen = specimen(plain);
        let archive = pack(specimen.path(), &flags);
        let (ours, unpacked) = unpack_bytes(&archive).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(unpacked.diff_id, sha256(&archive));
        let ours_tree = tree(ours.path());
        assert_same(&ours_tree, &tree(gnu_tar(&archive).path()), &what);
        if what.contains("posix") {
            assert_same(&ours_tree, &tree(specimen.path()), &format!("{what}, the original"));
        }
        if what.contains("sparse") {
            assert!(allocated(&ours.path().join("sparse")) < 1_000_000, "{what}: holes were filled");
            assert_eq!(allocated(&ours.path().join("hole")), 0, "{what}");
        }
    }
}

#[test]
fn same_as_gnu_tar_v7() {
    if !is_root() {
        return;
    }
    let specimen = specimen(true);
    std::fs::remove_file(specimen.path().join("fifo")).unwrap();
    let archive = pack(specimen.path(), &["--format=v7"]);
    let (ours, _) = unpack_bytes(&archive).unwrap();
    assert_same(&tree(ours.path()), &tree(gnu_tar(&archive).path()), "v7");
}

/// umoci is an OCI image tool with an unpacker of its own.
#[test]
fn same_as_umoci() {
    if !is_root() {
        return;
    }
    if Command::new("umoci").arg("--version").output().is_err() {
        eprintln!("!!! umoci is not installed: not compared with it");
        return;
    }
    let specimen = specimen(false);
    // umoci does not know sparse files, and warns about times before 1970.
    set_time(&specimen.path().join("empty"), 5, 0);
    let archive = pack(specimen.path(), &["--format=posix", "--xattrs", "--xattrs-include=*"]);
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::write(at("layer.tar"), &archive).unwrap();
    let image = format!("{}:x", at("image").display());
    run(Command::new("umoci").arg("init").arg("--layout").arg(at("image")));
    run(Command::new("umoci").args(["new", "--image", &image]));
    run(Command::new("umoci").args(["raw", "add-layer", "--image", &image]).arg(at("layer.tar")));
    run(Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(at("rootfs")));
    let (ours, _) = unpack_bytes(&archive).unwrap();
    let (mut ours, mut theirs) = (tree(ours.path()), tree(&at("rootfs")));
    for node in ours.values_mut().chain(theirs.values_mut()) {
        // umoci gives hard links' inodes the attributes of the link's entry; tar wrote the same ones.
        node.xattrs.remove(&b"user.rootlesscontainers"[..]);
    }
    assert_same(&ours, &theirs, "umoci");
}

/// The entries that tar-core sees in archives that it can read, and ours.
#[test]
fn same_as_tar_core() {
    use tar_core::parse::{Limits as CoreLimits, ParseEvent, Parser};
    if !is_root() {
        return;
    }
    let specimen = specimen(false);
    // It gives up on times before 1970.
    set_time(&specimen.path().join("empty"), 5, 0);
    for flags in [
        &["--format=posix", "--sparse", "--sparse-version=0.0", "--xattrs"][..],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=gnu", "--sparse"],
    ] {
        let archive = pack(specimen.path(), flags);
        let limits = Limits::default();
        let mut ours = Archive::new(Stream::new(&archive[..], u64::MAX), &limits);
        let (mut core, mut at) = (Parser::new(CoreLimits::default()), 0);
        loop {
            let (consumed, entry, sparse) = match core.parse(&archive[at..]).unwrap() {
                ParseEvent::Entry { consumed, entry } => (consumed, entry, None),
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    (consumed, entry, Some((sparse_map, real_size)))
                }
                ParseEvent::End { .. } => break,
                other => panic!("{other:?}"),
            };
            let our = ours.next().unwrap().unwrap();
            assert_eq!(our.name, *entry.path, "{flags:?}");
            assert_eq!(our.link_name, entry.link_target.as_deref().unwrap_or_default());
            assert_eq!(
                (our.attributes.mode, u64::from(our.attributes.uid)),
                (entry.mode & 0o7777, entry.uid)
            );
            assert_eq!(our.attributes.mtime.unwrap().seconds.cast_unsigned(), entry.mtime);
            assert_eq!(our.size, sparse.as_ref().map_or(entry.size, |(_, size)| *size));
            let map = sparse.map(|(map, _)| map.iter().map(|r| (r.offset, r.length)).collect::<Vec<_>>());
            assert_eq!(
                our.regions.map(|map| map.iter().map(|r| (r.offset, r.length)).collect::<Vec<_>>()),
                map
            );
            at += consumed + entry.padded_size() as usize;
        }
        assert!(ours.next().unwrap().is_none());
    }
}

/// A layer must not look different when it is loaded lazily.
#[test]
fn same_entries_as_the_ztoc_builder() {
    if !is_root() {
        return;
    }
    let specimen = specimen(false);
    for flags in [&["--format=posix", "--xattrs", "--xattrs-include=*"][..], &["--format=gnu"]] {
        let archive = pack(specimen.path(), flags);
        let mut walker = ztoc::TarWalker::new();
        walker.push(&archive).unwrap();
        let (entries, _) = walker.finish().unwrap();
        let limits = Limits::default();
        let mut ours = Archive::new(Stream::new(&archive[..], u64::MAX), &limits);
        for entry in entries {
            let our = ours.next().unwrap().unwrap();
            let time = our.attributes.mtime.unwrap();
            assert_eq!((our.name, our.link_name), (entry.name.clone(), entry.link_name));
            assert_eq!(
                (our.size, our.attributes.uid, our.attributes.gid),
                (entry.size, entry.uid, entry.gid)
            );
            assert_eq!((time.seconds, time.nanos), (entry.mtime.seconds, entry.mtime.nanos));
            assert_eq!(our.device, (entry.devmajor, entry.devminor));
            assert_eq!(i64::from(our.attributes.mode), entry.mode & 0o7777);
        }
        assert!(ours.next().unwrap().is_none());
    }
}
