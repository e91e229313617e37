//! Archives that try to reach outside, or to exhaust something.

use super::*;

/// Unpacks into `target` beside `victim`, and checks that nothing but `target` changed.
fn contained(what: &str, layer: &[u8]) -> (TempDir, Result<Unpacked, UnpackError>) {
    let around = tempfile::tempdir().unwrap();
    let victim = around.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("secret"), "secret").unwrap();
    let target = around.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let outside = |tree: BTreeMap<Vec<u8>, Node>| {
        tree.into_iter().filter(|(path, _)| !path.starts_with(b"target")).collect::<BTreeMap<_, _>>()
    };
    let before = outside(tree(around.path()));
    let result = unpack(layer, None, &target, &Options::default());
    assert_same(&outside(tree(around.path())), &before, what);
    for (path, node) in tree(around.path()) {
        // A hard link to the victim would show its contents.
        assert!(!path.starts_with(b"target") || node.content != b"secret", "{what}: {}", path.escape_ascii());
    }
    (around, result)
}

#[test]
fn nothing_outside_is_touched() {
    let elsewhere = tempfile::tempdir().unwrap();
    let absolute = elsewhere.path().to_str().unwrap();
    let ups = "../".repeat(20);
    let layers = [
        ("write through a link", Tar::default().symlink("x", "../victim").file("x/secret", b"hacked")),
        ("write through an absolute link", Tar::default().symlink("x", absolute).file("x/hacked", b"")),
        ("write to a link", Tar::default().symlink("x", "../victim/secret").file("x", b"hacked")),
        ("directory over a link", Tar::default().symlink("x", "../victim").dir("x").file("x/secret", b"")),
        (
            "root through a link",
            Tar::default().symlink("./", "../victim").symlink("", "../victim").file("secret", b""),
        ),
        (
            "link in the middle",
            Tar::default().dir("a").symlink("a/b", "../../victim").file("a/b/secret", b""),
        ),
        ("link to a link", Tar::default().symlink("a", "..").symlink("b", "a/victim").file("b/secret", b"")),
        (
            "directory swapped for a link",
            Tar::default().file("d/f", b"").symlink("d", "../victim").file("d/secret", b"hacked"),
        ),
        (
            "names that go up",
            Tar::default().file("../victim/secret", b"hacked").file(&format!("{ups}tmp/x"), b""),
        ),
        ("absolute names", Tar::default().file("/victim/secret", b"hacked").dir("/etc")),
        ("whiteout through a link", Tar::default().symlink("x", "../victim").file("x/.wh.secret", b"")),
        ("opaque through a link", Tar::default().symlink("x", "../victim").file("x/.wh..wh..opq", b"")),
        (
            "hard link then write",
            Tar::default().symlink("x", "../victim/secret").link("y", "x").file("y", b"hacked"),
        ),
        (
            "attributes through a link",
            Tar::default()
                .dir("x")
                .symlink("x", "../victim")
                .pax(&[("SCHILY.xattr.user.a", b"b")])
                .symlink("x", "../victim"),
        ),
        ("attributes of a directory that became a link", Tar::default().dir("a/d").symlink("a", "../victim")),
        ("replace through a link", Tar::default().symlink("x", "../victim").dir("x/secret").file("x", b"")),
    ];
    for (what, layer) in layers {
        let (_around, result) = contained(what, &layer.end());
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn hard_links_lead_nowhere_else() {
    for (what, layer) in [
        ("up", Tar::default().link("x", "../victim/secret")),
        ("absolute", Tar::default().link("x", "/etc/passwd")),
        ("through a link", Tar::default().symlink("l", "../victim").link("x", "l/secret")),
        ("to a directory", Tar::default().dir("d").link("x", "d")),
        ("to the root", Tar::default().link("x", "/")),
        ("to nothing", Tar::default().link("x", "")),
        ("to itself", Tar::default().link("x", "x")),
        ("to what it replaces", Tar::default().file("d/f", b"").link("d", "d/f")),
    ] {
        let (_around, result) = contained(what, &layer.end());
        let error = result.map(|_| ()).unwrap_err();
        assert!(matches!(error, UnpackError::HardLink { .. }), "{what}: {error}");
    }
    // A link to itself once it is there changes nothing, and one to a symbolic link links the link.
    let layer =
        Tar::default().file("x", b"x").link("x", "./x").symlink("l", "/etc/passwd").link("m", "l").end();
    let (around, result) = contained("harmless", &layer);
    result.unwrap();
    let tree = tree(&around.path().join("target"));
    assert_eq!((&tree[&b"x"[..]].content[..], tree[&b"m"[..]].kind), (&b"x"[..], "symlink"));
}

#[test]
fn names_without_end() {
    let long = |count: usize| "a".repeat(count);
    for name in
        [long(256), long(1_000_000), "a/".repeat(500_000), format!("{}x", "../".repeat(2000)), "\0".into()]
    {
        for layer in [
            Tar::default().pax(&[("path", name.as_bytes())]).file("f", b""),
            Tar::default()
                .pax(&[("GNU.sparse.name", name.as_bytes()), ("GNU.sparse.map", b"0,0")])
                .file("f", b""),
            Tar::default().file("f", b"").pax(&[("linkpath", name.as_bytes())]).link("x", "f"),
        ] {
            let (_around, result) = contained("long", &layer.end());
            let error = result.map(|_| ()).unwrap_err().to_string();
            assert!(error.len() < 2000, "{} bytes of message", error.len());
        }
    }
    let mut tar = Tar::default();
    tar.raw(b'L', b"././@LongLink", b"", 1 << 21, |_| {});
    let (_around, result) = contained("above the limit", &tar.data(&vec![b'a'; 1 << 21]).end());
    assert!(result.unwrap_err().to_string().contains("above 1 MiB"));
    // A link may lead anywhere, but not with more bytes than the kernel takes.
    let (_around, result) =
        contained("link", &Tar::default().pax(&[("linkpath", long(5000).as_bytes())]).symlink("l", "").end());
    assert!(matches!(result.unwrap_err(), UnpackError::Io { .. }));
}

#[test]
fn deep_trees_are_made_and_replaced_without_recursion() {
    let deep = "d/".repeat(2000);
    let layer = Tar::default()
        .pax(&[("path", format!("{deep}f").as_bytes())])
        .file("f", b"deep")
        .pax(&[("path", format!("{deep}g").as_bytes()), ("linkpath", format!("{deep}f").as_bytes())])
        .link("g", "f");
    let (_around, result) = contained("deep", &layer.clone().end());
    result.unwrap();
    // On a thread with little stack, as some callers' threads have.
    let replaced = layer.symlink("d", "elsewhere").end();
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            let (target, _) = unpack_bytes(&replaced).unwrap();
            assert_eq!(tree(target.path()).len(), 2);
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn sizes_that_lie() {
    let with_size = |text: &[u8]| {
        let text = text.to_vec();
        let mut tar = Tar::default();
        tar.raw(b'0', b"f", b"", 0, move |block| block[124..136].copy_from_slice(&text));
        tar.end()
    };
    for (what, layer, expected) in [
        ("more than there is", with_size(b"77777777777\0"), "ends within a file"),
        ("negative", with_size(&[0xff; 12]), "negative size"),
        ("above 63 bits", with_size(&[0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]), "too large"),
        ("above the limit", with_size(&[0x80, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0]), "limit"),
        ("negative PAX size", Tar::default().pax(&[("size", b"-1")]).file("f", b"").end(), "negative size"),
        (
            "PAX size that is no number",
            Tar::default().pax(&[("size", b"1e3")]).file("f", b"").end(),
            "malformed",
        ),
        (
            "a huge hole",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.map", b"0,0")])
                .file("f", b"")
                .end(),
            "limit",
        ),
        (
            "regions beyond the file",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"8,4")])
                .file("f", b"data")
                .end(),
            "beyond the end",
        ),
        (
            "regions out of order",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"4,2,0,2")])
                .file("f", b"data")
                .end(),
            "out of order",
        ),
        (
            "regions that overflow",
            Tar::default()
                .pax(&[
                    ("GNU.sparse.size", b"10"),
                    ("GNU.sparse.map", b"9223372036854775807,9223372036854775807"),
                ])
                .file("f", b"data")
                .end(),
            "beyond the end",
        ),
        (
            "less data than regions",
            Tar::default()
                .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,6")])
                .file("f", b"data")
                .end(),
            "does not match",
        ),
        (
            "a million regions that are not there",
            Tar::default()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")])
                .file("f", b"1000000\n")
                .end(),
            "cut short",
        ),
    ] {
        let (_around, result) = contained(what, &layer);
        let error = result.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn limits_hold() {
    let layer = Tar::default().dir("a").dir("b").dir("c").file("f", &[1; 5000]).end();
    let all = Limits::default();
    for (limits, what) in [
        (Limits { uncompressed_size: 4000, ..all.clone() }, "uncompressed size"),
        (Limits { entries: 3, ..all.clone() }, "number of entries"),
        (Limits { file_size: 4999, ..all.clone() }, "largest file"),
        (Limits { directory_memory: 500, ..all.clone() }, "memory for directories"),
    ] {
        let error = unpack_with(&layer, &Options { limits, ..Options::default() }).map(|_| ()).unwrap_err();
        assert!(matches!(error, UnpackError::Limit { what: found, .. } if found == what), "{what}: {error}");
    }
    unpack_bytes(&layer).unwrap();
    // Zeros without end, small when compressed.
    let bomb = formats::gzip(&Tar::default().file("f", &vec![0; 50 << 20]).end());
    let limits = Limits { uncompressed_size: 10 << 20, ..all };
    let error = unpack_with(&bomb, &Options { limits, ..Options::default() }).map(|_| ()).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { .. }), "{error}");
}

#[test]
fn devices() {
    if !is_root() {
        return;
    }
    let mut tar = Tar::default().device(b'4', "disk", 8, 1);
    for minor in 0..500 {
        tar = tar.device(b'3', &format!("dev/{minor}"), 1, minor);
    }
    // One that claims to have data.
    tar.raw(b'3', b"dev/null", b"", 0o7777777, |block| block[335] = b'1');
    let (target, _) = unpack_bytes(&tar.end()).unwrap();
    let tree = tree(target.path());
    assert_eq!(tree.len(), 504);
    assert_eq!((tree[&b"disk"[..]].kind, tree[&b"disk"[..]].device), ("block", rustix::fs::makedev(8, 1)));
    assert_eq!(tree[&b"dev/300"[..]].device, rustix::fs::makedev(1, 300));
    // Cut to the kernel's bits these would be other devices, or whiteouts.
    for (major, minor) in [(4096, 0), (0, 1 << 20)] {
        let error =
            unpack_bytes(&Tar::default().device(b'3', "x", major, minor).end()).map(|_| ()).unwrap_err();
        assert!(matches!(error, UnpackError::Entry { .. }), "{error}");
    }
}

#[test]
fn malformed_names_of_whiteouts() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."] {
        let (_around, result) = contained(name, &Tar::default().file(name, b"").end());
        assert!(matches!(result.unwrap_err(), UnpackError::Entry { .. }), "{name}");
    }
}
