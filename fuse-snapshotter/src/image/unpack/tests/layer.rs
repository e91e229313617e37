//! What one layer becomes: whiteouts, opaque directories, replacing, parents.

use super::*;

/// cap_net_raw+ep, as `setcap` writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const WHITEOUT: (&str, u64) = ("char", 0);

fn kinds(target: &Path) -> Vec<(String, &'static str)> {
    tree(target)
        .into_iter()
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, node)| (String::from_utf8(path).unwrap(), node.kind))
        .collect()
}

fn opaque(node: &Node) -> bool {
    node.xattrs.get(&b"trusted.overlay.opaque"[..]).is_some_and(|value| value == b"y")
}

#[test]
fn whiteouts_become_devices() {
    if !is_root() {
        return;
    }
    let layer = Tar::default()
        .file(".wh.gone", b"")
        .dir("d/")
        .file("d/.wh.gone", b"")
        .device(b'3', "d/device", 0, 0)
        .file("x/y/.wh.z", b"ignored")
        .file(".wh..wh.aufs", b"")
        .file("d/.wh..wh.plnk", b"")
        .end();
    let (target, unpacked) = unpack_bytes(&layer).unwrap();
    assert_eq!(unpacked.entries, 7);
    let tree = tree(target.path());
    for path in ["gone", "d/gone", "d/device", "x/y/z"] {
        let node = &tree[path.as_bytes()];
        assert_eq!((node.kind, node.device), WHITEOUT, "{path}");
    }
    assert_eq!(tree.len(), 8, "{tree:?}");
}

#[test]
fn a_whiteout_never_hides_what_its_own_layer_adds() {
    if !is_root() {
        return;
    }
    let file = Tar::default().file("x", b"new");
    let hidden = Tar::default().file(".wh.x", b"");
    let device = Tar::default().device(b'3', "x", 0, 0);
    let directory = Tar::default().file("x/inside", b"");
    let both = |a: &Tar, b: &Tar| Tar([&a.0[..], &b.0].concat()).end();
    for whiteout in [&hidden, &device] {
        for layer in [both(&file, whiteout), both(whiteout, &file)] {
            let (target, _) = unpack_bytes(&layer).unwrap();
            let tree = tree(target.path());
            assert_eq!((tree[&b"x"[..]].kind, &tree[&b"x"[..]].content[..]), ("file", &b"new"[..]));
        }
        for layer in [both(&directory, whiteout), both(whiteout, &directory)] {
            let (target, _) = unpack_bytes(&layer).unwrap();
            let tree = tree(target.path());
            assert!(opaque(&tree[&b"x"[..]]), "the lower x is gone");
            assert_eq!(tree[&b"x/inside"[..]].kind, "file");
        }
    }
}

#[test]
fn opaque_directories() {
    if !is_root() {
        return;
    }
    let layer = Tar::default()
        .file("a/.wh..wh..opq", b"")
        // The directory's own entry comes after its mark, and must not undo it.
        .dir("a/")
        .file("a/kept", b"")
        .dir("b/")
        .file("b/.wh..wh..opq", b"")
        .file("c/f", b"")
        .end();
    let (target, _) = unpack_bytes(&layer).unwrap();
    let tree_ = tree(target.path());
    assert!(opaque(&tree_[&b"a"[..]]) && opaque(&tree_[&b"b"[..]]) && !opaque(&tree_[&b"c"[..]]));
    assert_eq!(tree_.len(), 6);
    let options = Options { whiteouts: Whiteouts::UserXattr, ..Options::default() };
    let (target, _) = unpack_with(&layer, &options).unwrap();
    let tree = tree(target.path());
    assert_eq!(tree[&b"a"[..]].xattrs.get(&b"user.overlay.opaque"[..]).map(Vec::as_slice), Some(&b"y"[..]));
    assert!(!opaque(&tree[&b"a"[..]]));
}

#[test]
fn names_are_cleaned() {
    let layer = Tar::default()
        .dir("./")
        .file("/absolute", b"1")
        .file("./dot//slashes/./f", b"2")
        .file("up/../../../top", b"3")
        .dir("a/b/")
        .file("a/b/../c", b"4")
        .file("./", b"")
        .end();
    let (target, _) = unpack_bytes(&layer).unwrap();
    let expected = [
        ("a", "dir"),
        ("a/b", "dir"),
        ("a/c", "file"),
        ("absolute", "file"),
        ("dot", "dir"),
        ("dot/slashes", "dir"),
        ("dot/slashes/f", "file"),
        ("top", "file"),
    ];
    assert_eq!(kinds(target.path()), expected.map(|(path, kind)| (path.to_owned(), kind)));
}

#[test]
fn the_root_has_attributes_too() {
    let mut layer = Tar::default();
    layer.raw(b'5', b"./", b"", 0, |block| block[100..107].copy_from_slice(b"0001711"));
    let (target, _) = unpack_bytes(&layer.file("f", b"").end()).unwrap();
    let root = &tree(target.path())[&b""[..]];
    assert_eq!((root.mode, root.mtime), (0o1711, (0o14712345670, 0)));
}

#[test]
fn missing_parents_are_made() {
    let (target, _) = unpack_bytes(&Tar::default().file("a/b/c", b"").end()).unwrap();
    let tree = tree(target.path());
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for path in ["a", "a/b"] {
        let node = &tree[path.as_bytes()];
        assert_eq!((node.kind, node.mode, node.owner), ("dir", 0o755, me), "{path}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let everything = ["dir", "file", "symlink", "hardlink", "fifo"];
    let add = |tar: Tar, kind: &str, data: &[u8]| match kind {
        "dir" => tar.dir("x"),
        "file" => tar.file("x", data),
        "symlink" => tar.symlink("x", "nowhere"),
        "hardlink" => tar.link("x", "original"),
        _ => tar.entry(b'6', "x", ""),
    };
    for first in everything {
        for second in everything {
            let tar = add(Tar::default().file("original", b"o"), first, b"first, and longer");
            let tar = if first == "dir" { tar.file("x/deep/child", b"") } else { tar };
            let (target, _) = unpack_bytes(&add(tar, second, b"second").end()).unwrap();
            let tree = tree(target.path());
            let node = &tree[&b"x"[..]];
            let expected = match second {
                "hardlink" => "file",
                other => other,
            };
            assert_eq!(node.kind, expected, "{first} then {second}");
            assert_eq!(tree.contains_key(&b"x/deep/child"[..]), (first, second) == ("dir", "dir"));
            match second {
                "file" => assert_eq!(node.content, b"second"),
                "hardlink" => assert_eq!(node.same_as, b"original"),
                _ => {}
            }
            assert_eq!(tree[&b"original"[..]].content, b"o", "{first} then {second}");
        }
    }
}

#[test]
fn a_directory_that_comes_again_takes_the_later_attributes_only() {
    let xattr: (&str, &[u8]) = ("SCHILY.xattr.user.first", b"1");
    let mut tar = Tar::default().pax(&[xattr]).dir("d").file("d/f", b"").pax(&[("mtime", b"1.5")]);
    tar.raw(b'5', b"d/", b"", 0, |block| block[100..107].copy_from_slice(b"0000555"));
    let (target, _) = unpack_bytes(&tar.file("d/g", b"").end()).unwrap();
    let tree = tree(target.path());
    let node = &tree[&b"d"[..]];
    assert_eq!((node.mode, node.mtime, node.xattrs.len()), (0o555, (1, 500_000_000), 0));
    assert!(tree.contains_key(&b"d/f"[..]) && tree.contains_key(&b"d/g"[..]));
}

#[test]
fn attributes_of_a_replaced_directory_are_forgotten() {
    let mut tar = Tar::default();
    tar.raw(b'5', b"d/e", b"", 0, |block| block[100..107].copy_from_slice(b"0000111"));
    tar.raw(b'5', b"d-e", b"", 0, |block| block[100..107].copy_from_slice(b"0000700"));
    let layer = tar.file("d", b"").file("d/e/f", b"").end();
    let (target, _) = unpack_bytes(&layer).unwrap();
    let tree = tree(target.path());
    assert_eq!((tree[&b"d"[..]].mode, tree[&b"d/e"[..]].mode, tree[&b"d-e"[..]].mode), (0o755, 0o755, 0o700));
}

#[test]
fn overlay_xattrs_of_the_archive_are_dropped() {
    if !is_root() {
        return;
    }
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.other", b"kept"),
        ("SCHILY.xattr.user.empty", b""),
    ];
    let layer =
        Tar::default().pax(records).dir("d").pax(records).file("f", b"").pax(&records[..4]).symlink("l", "f");
    let (target, _) = unpack_bytes(&layer.end()).unwrap();
    let tree = tree(target.path());
    for path in ["d", "f", "l"] {
        let names: Vec<_> =
            tree[path.as_bytes()].xattrs.keys().map(|name| String::from_utf8_lossy(name)).collect();
        let expected: &[&str] =
            if path == "l" { &["trusted.other"] } else { &["trusted.other", "user.empty"] };
        assert_eq!(names, expected, "{path}");
    }
}

#[test]
fn capabilities_survive_the_change_of_owner() {
    if !is_root() {
        return;
    }
    let mut tar = Tar::default().pax(&[("uid", b"1000"), ("SCHILY.xattr.security.capability", &CAPABILITY)]);
    tar.raw(b'0', b"ping", b"", 3, |block| block[100..107].copy_from_slice(b"0006755"));
    let (target, _) = unpack_bytes(&tar.data(b"elf").end()).unwrap();
    let node = &tree(target.path())[&b"ping"[..]];
    assert_eq!((node.owner, node.mode), ((1000, 0), 0o6755));
    assert_eq!(node.xattrs[&b"security.capability"[..]], CAPABILITY);
}

#[test]
fn default_acls_are_not_inherited_by_the_layers_own_files() {
    // A default ACL of user::rwx, group::r-x, other::---.
    let acl: &[u8] = &[
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255,
        255, 255,
    ];
    let layer = Tar::default()
        .pax(&[("SCHILY.xattr.system.posix_acl_default", acl)])
        .dir("d")
        .dir("d/e")
        .file("d/f", b"")
        .end();
    let (target, _) = unpack_bytes(&layer).unwrap();
    let tree = tree(target.path());
    assert_eq!(tree[&b"d/e"[..]].xattrs.len() + tree[&b"d/f"[..]].xattrs.len(), 0);
    assert_eq!((tree[&b"d/e"[..]].mode, tree[&b"d/f"[..]].mode), (0o755, 0o644));
    if tree[&b"d"[..]].xattrs.is_empty() {
        eprintln!("!!! this file system has no ACLs: little was tested");
    }
}

#[test]
fn unknown_types_are_skipped_and_global_headers_ignored() {
    let mut tar = Tar::default().pax(&[("path", b"lost with the entry before the global header")]);
    tar.raw(b'g', b"pax_global_header", b"", 20, |_| {});
    tar = tar.data(b"20 path=everything\n\n");
    tar.raw(b'Z', b"unknown", b"", 700, |_| {});
    tar = tar.data(&[7; 700]);
    tar.raw(b'7', b"contiguous", b"", 3, |_| {});
    tar = tar.data(b"abc");
    let (target, unpacked) = unpack_bytes(&tar.end()).unwrap();
    assert_eq!(kinds(target.path()), [("contiguous".to_owned(), "file")]);
    assert_eq!(unpacked.entries, 2);
}

#[test]
fn times_before_1970_and_long_fractions() {
    let layer =
        Tar::default().pax(&[("mtime", b"-1.25")]).file("f", b"").pax(&[("mtime", b"1234567890.1234567899")]);
    let (target, _) = unpack_bytes(&layer.symlink("l", "f").end()).unwrap();
    let tree = tree(target.path());
    assert_eq!(tree[&b"f"[..]].mtime, (-2, 750_000_000));
    assert_eq!(tree[&b"l"[..]].mtime, (1_234_567_890, 123_456_789));
}

/// Runs itself again as nobody when started by root.
#[test]
fn unpack_without_root() {
    if ran_as_nobody() {
        return;
    }
    let records: &[(&str, &[u8])] = &[
        ("uid", b"1000"),
        ("SCHILY.xattr.trusted.x", b"1"),
        ("SCHILY.xattr.security.capability", &CAPABILITY),
        ("SCHILY.xattr.user.x", b"1"),
    ];
    let mut tar = Tar::default();
    tar.raw(b'5', b"read-only", b"", 0, |block| block[100..107].copy_from_slice(b"0000555"));
    let layer = tar
        .pax(records)
        .file("read-only/f", b"data")
        .pax(records)
        .symlink("link", "f")
        .device(b'3', "null", 1, 3)
        .file(".wh.gone", b"")
        .file("o/.wh..wh..opq", b"")
        .end();
    let options = Options::default();
    assert!(!options.ownership && options.whiteouts == Whiteouts::UserXattr);
    let (target, _) = unpack_with(&layer, &options).unwrap();
    let tree = tree(target.path());
    let me = rustix::process::geteuid().as_raw();
    assert!(tree.values().all(|node| node.owner.0 == me));
    assert_eq!(tree[&b"read-only"[..]].mode, 0o555);
    assert_eq!(tree[&b"read-only/f"[..]].xattrs.keys().collect::<Vec<_>>(), [b"user.x"]);
    assert_eq!((tree[&b"gone"[..]].kind, tree[&b"gone"[..]].device), WHITEOUT);
    assert!(tree[&b"o"[..]].xattrs.contains_key(&b"user.overlay.opaque"[..]));
    assert!(!tree.contains_key(&b"null"[..]));
    // So that the temporary directory can go.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(target.path().join("read-only"), open).unwrap();
}
