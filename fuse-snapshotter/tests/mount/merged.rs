//! What a mount looks like: the merged tree, to the last attribute, however its layers are served.

use testdata::expected::{Tree, merge};
use testdata::image::{Compression, Entry, Image, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::registry::TestRegistry;
use testdata::walk::{compare, walk};

use crate::can_mount;
use crate::fronts::fronts;
use crate::program::{Mount, index, program};

fn layer(entries: Vec<Entry>) -> Layer {
    let mut builder = LayerBuilder::new(Compression::GZIP);
    for entry in entries {
        builder.add(entry);
    }
    builder.finish()
}

/// Layers in which everything happens that layers can do to each other.
pub(crate) fn layers() -> Vec<Layer> {
    let text = |path: &str, seed, len| Entry::made(path, Texture::Text, seed, len);
    vec![
        layer(vec![
            Entry::dir("./").mode(0o755).mtime(1_600_000_000, 5),
            Entry::dir("bin").mode(0o755),
            text("bin/program", 1, 200_000).mode(0o4755).xattr("security.capability", CAPABILITY),
            text("bin/other", 2, 5000).mode(0o755).owner(7, 8),
            Entry::hard_link("bin/same", "bin/other"),
            Entry::dir("etc").mode(0o700).owner(1000, 1000).mtime(1_600_000_000, 123_456_789),
            text("etc/config", 3, 100).mode(0o640).xattr("user.comment", "lower"),
            text("etc/removed", 4, 100),
            Entry::dir("opaque"),
            text("opaque/hidden", 5, 100),
            Entry::dir("becomes-file"),
            text("becomes-file/inside", 6, 10),
            text("becomes-directory", 7, 10),
            Entry::symlink("link", "bin/program").mode(0o755),
            Entry::symlink("dangling", "/nowhere/at/all"),
            Entry::char_device("null", 1, 3).mode(0o666),
            Entry::block_device("disk", 259, 1025).owner(0, 6),
            Entry::fifo("pipe").mode(0o600),
            text("empty", 8, 0),
            Entry::dir("sticky").mode(0o1777),
            Entry::dir("whited-out"),
            text("whited-out/gone", 9, 10),
            text("old time", 10, 3).mtime(-1, 999_999_999),
            text(&format!("long/{}/{}", "d".repeat(200), "f".repeat(250)), 11, 30),
        ]),
        layer(vec![
            Entry::dir("etc").mode(0o750).owner(1000, 1001),
            text("etc/config", 12, 70_000).mode(0o644).xattr("user.comment", "upper").xattr("user.empty", ""),
            Entry::whiteout("etc/removed"),
            Entry::opaque("opaque"),
            text("opaque/visible", 13, 100),
            text("becomes-file", 14, 20),
            Entry::dir("becomes-directory").mode(0o711),
            text("becomes-directory/inside", 15, 20),
            Entry::whiteout("whited-out"),
            text("implied/parent/file", 16, 20),
        ]),
        layer(vec![
            // The parent is not mentioned: it keeps what the layer below says of it.
            text("etc/added", 17, 4096),
            Entry::whiteout("etc/config"),
            Entry::dir("whited-out").mode(0o710),
            text("whited-out/new", 18, 4097),
            Entry::hard_link("bin/again", "whited-out/new"),
        ]),
    ]
}

/// cap_net_raw+ep, as `setcap` writes it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn image(layers: &[Layer]) -> Image {
    layers.iter().cloned().fold(ImageBuilder::new(), ImageBuilder::layer).build()
}

/// Layers are indexed by size, so padding decides which are read lazily.
fn padded(layer: &Layer, number: u64) -> Layer {
    let mut builder = LayerBuilder::new(Compression::GZIP);
    for entry in layer.entries.iter() {
        builder.add(entry.clone());
    }
    builder.add(Entry::made(format!("padding-{number}"), Texture::Random, number, 300_000));
    builder.finish()
}

fn expected(layers: &[Layer]) -> Tree {
    merge(layers)
}

#[test]
fn a_lazy_mount_is_the_merged_tree() {
    if !can_mount() {
        return;
    }
    let layers = layers();
    let registry = TestRegistry::builder().start_blocking();
    image(&layers).put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, &["--min-layer-size", "0", "--span-size", "10000"]);
    for front in fronts() {
        let mount = Mount::new(&reference, &["--front", front]);
        compare(&walk(&mount.path()), &expected(&layers)).unwrap_or_else(|error| panic!("{front}: {error}"));
        let lines = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let own = lines.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap();
        match front {
            "fuse" => assert!(own.starts_with("soci ") && own.contains(" fuse.rawBridge ro,"), "{own}"),
            _ => assert!(own.contains(".erofs ") && own.contains(" erofs ro,"), "{own}"),
        }
        let report = mount.finish();
        assert!(
            report["layers"].as_array().unwrap().iter().all(|layer| layer["mode"] == "lazy"),
            "{front}: {report}"
        );
    }
}

#[test]
fn lazy_and_unpacked_layers_stack_in_every_order() {
    if !can_mount() {
        return;
    }
    let mut layers = layers();
    // A fourth layer, so that an unpacked one can lie between lazy ones.
    layers.push(layer(vec![
        Entry::dir("opaque"),
        Entry::made("opaque/above", Texture::Text, 20, 50),
        Entry::whiteout("bin/program"),
    ]));
    for lazy in [0b0000u32, 0b0001, 0b1000, 0b0101, 0b1010, 0b0110, 0b1011] {
        let layers: Vec<Layer> = (0u64..)
            .zip(&layers)
            .map(
                |(number, layer)| if lazy & 1 << number != 0 { padded(layer, number) } else { layer.clone() },
            )
            .collect();
        let registry = TestRegistry::builder().referrers_api(lazy & 1 == 0).start_blocking();
        image(&layers).put_into(&registry, "app", "1");
        let reference = format!("{}/app:1", registry.host());
        if lazy != 0 {
            index(&reference, &["--min-layer-size", "250000"]);
        }
        for front in fronts() {
            let mount = Mount::new(&reference, &["--front", front]);
            compare(&walk(&mount.path()), &expected(&layers))
                .unwrap_or_else(|error| panic!("{front} {lazy:04b}: {error}"));
            let report = mount.finish();
            for (number, layer) in report["layers"].as_array().unwrap().iter().enumerate() {
                let wanted = if lazy & 1 << number != 0 { "lazy" } else { "unpacked" };
                assert_eq!(layer["mode"], wanted, "{front} {lazy:04b} {number}: {report}");
            }
        }
    }
}

#[test]
fn golden_images_of_every_tar_form_are_served() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    for name in ["all-layers", "docker"] {
        registry.put_layout(name, "1", testdata::golden::image_dir(name));
        let reference = format!("{}/{name}:1", registry.host());
        let unpacked = Mount::new(&reference, &[]);
        index(&reference, &["--min-layer-size", "0", "--span-size", "65536"]);
        let lazy = Mount::new(&reference, &[]);
        compare(&walk(&lazy.path()), &walk(&unpacked.path()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(unpacked.finish()["index"].is_null());
        assert!(!lazy.finish()["index"].is_null());
    }
}

#[test]
fn a_layout_on_disk_is_mounted_through_the_local_store() {
    if !can_mount() {
        return;
    }
    let layers = layers();
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    image(&layers).write_layout(&layout, "1");
    let source = format!("oci:{}:1", layout.display());
    // Without an index it is unpacked.
    let mount = Mount::new(&source, &[]);
    compare(&walk(&mount.path()), &expected(&layers)).unwrap();
    assert!(mount.finish()["index"].is_null());
    // With one in the store under the same root it is read lazily, from the layout's own blobs.
    let root = directory.path().join("store");
    let root = root.to_str().unwrap();
    let output = std::process::Command::new(program("soci"))
        .args(["--root", root, "create", "--min-layer-size", "0", &source])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mount = Mount::new(&source, &["--root", root]);
    compare(&walk(&mount.path()), &expected(&layers)).unwrap();
    let report = mount.finish();
    assert!(report["layers"].as_array().unwrap().iter().all(|layer| layer["mode"] == "lazy"), "{report}");
}

#[test]
fn whiteouts_of_nothing_are_not_seen() {
    if !can_mount() {
        return;
    }
    let ghosts = |directory: &str| {
        layer(vec![
            Entry::dir(directory),
            Entry::made(format!("{directory}/file"), Texture::Text, 1, 10),
            Entry::whiteout(format!("{directory}/ghost")),
            Entry::opaque(directory),
            Entry::whiteout("nothing"),
        ])
    };
    let registry = TestRegistry::builder().start_blocking();
    for (name, layers) in [("one", vec![ghosts("a")]), ("two", vec![ghosts("a"), ghosts("b")])] {
        image(&layers).put_into(&registry, name, "1");
        let reference = format!("{}/{name}:1", registry.host());
        let unpacked = Mount::new(&reference, &[]);
        compare(&walk(&unpacked.path()), &expected(&layers)).unwrap();
        assert_eq!(unpacked.finish()["layers"][0]["mode"], "unpacked");
        index(&reference, &["--min-layer-size", "0"]);
        let lazy = Mount::new(&reference, &[]);
        compare(&walk(&lazy.path()), &expected(&layers)).unwrap();
        lazy.finish();
    }
}

#[test]
fn a_layer_may_be_in_an_image_twice() {
    if !can_mount() {
        return;
    }
    let base = padded(&layer(vec![Entry::made("a/file", Texture::Text, 1, 5000)]), 0);
    let layers = vec![base.clone(), layer(vec![Entry::whiteout("a/file")]), base];
    let registry = TestRegistry::builder().start_blocking();
    image(&layers).put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, &["--min-layer-size", "0"]);
    let mount = Mount::new(&reference, &[]);
    compare(&walk(&mount.path()), &expected(&layers)).unwrap();
    let report = mount.finish();
    assert!(report["layers"].as_array().unwrap().iter().all(|layer| layer["mode"] == "lazy"), "{report}");
}

#[test]
fn a_hard_link_to_a_file_of_a_layer_below_is_served() {
    if !can_mount() {
        return;
    }
    let layers = vec![
        padded(
            &layer(vec![Entry::dir("bin"), Entry::made("bin/tool", Texture::Text, 1, 5000).mode(0o755)]),
            0,
        ),
        layer(vec![Entry::hard_link("bin/alias", "bin/tool")]),
    ];
    let registry = TestRegistry::builder().start_blocking();
    image(&layers).put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    // If only the first layer is indexed, the second one cannot be unpacked, and joins the tree from a copy. Once both
    // are (of two indexes the one that covers more is used), they are one tree anyway.
    for (smallest, mode) in [("250000", "indexed"), ("0", "lazy")] {
        index(&reference, &["--min-layer-size", smallest, "--existing-index", "allow"]);
        let mount = Mount::new(&reference, &[]);
        compare(&walk(&mount.path()), &expected(&layers)).unwrap();
        assert_eq!(mount.finish()["layers"][1]["mode"], mode);
    }
}

#[test]
fn ordinary_users_mount_through_fusermount() {
    if !can_mount() || !testdata::need::available(&[testdata::need::Need::FuseForUsers]) {
        return;
    }
    let mut layers = layers();
    layers[0] = padded(&layers[0], 0);
    let registry = TestRegistry::builder().start_blocking();
    image(&layers).put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    // The first layer is the only one above this size; the others are served from local copies.
    index(&reference, &["--min-layer-size", "250000"]);
    let mount = Mount::as_user(65534, &reference, &[]).unwrap();
    let listing = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"])
        .arg("cd \"$1\" && ls -ln bin && cat opaque/visible becomes-directory/inside etc/config; ls implied/parent")
        .arg("sh")
        .arg(mount.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&listing.stdout);
    assert!(text.contains("program") && text.contains("same") && text.contains("file"), "{text}");
    // `etc` belongs to user 1000 and is closed to others: that holds for them, too.
    let said = String::from_utf8_lossy(&listing.stderr);
    assert!(said.contains("Permission denied"), "{said}");
    // Somebody who is still in there does not hold up the end.
    let mut inside = std::process::Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
            "cd \"$1\" && exec sleep 60",
            "sh",
        ])
        .arg(mount.path())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let report = mount.finish();
    inside.kill().unwrap();
    inside.wait().unwrap();
    assert_eq!(report["layers"][0]["mode"], "lazy");
    assert_eq!(report["layers"][1]["mode"], "indexed");
}
