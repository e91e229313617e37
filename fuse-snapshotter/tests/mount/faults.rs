//! A registry, an index or a layer that is not what it should be: right bytes or a clear error, never anything else.

use std::io::Read;

use testdata::image::{Compression, Entry, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::need::can_mount_erofs;
use testdata::registry::{Action, Expired, Fault, Redirect, TestRegistry};

use crate::can_mount;
use crate::program::{Mount, index, program};

const FILES: u64 = 8;

fn layer() -> Layer {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    for number in 0..FILES {
        layer.add(Entry::made(format!("data/{number}"), Texture::Binary, number, 300_000));
    }
    layer.finish()
}

fn prepare(registry: &TestRegistry) -> (String, Layer) {
    let layer = layer();
    ImageBuilder::new().layer(layer.clone()).build().put_into(registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, &["--min-layer-size", "0", "--span-size", "200000"]);
    (reference, layer)
}

/// Reads every file; each must have its own content.
fn assert_right(mount: &Mount, layer: &Layer) {
    for entry in layer.entries.iter() {
        let path = mount.path().join(String::from_utf8(entry.path.clone()).unwrap());
        let read = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(read == entry.content().unwrap().to_vec(), "{}", path.display());
    }
}

#[test]
fn passing_faults_of_the_registry_are_overcome() {
    if !can_mount() {
        return;
    }
    let unauthorized = |status| Action::Status(status, Vec::new(), bytes::Bytes::new());
    let faults: Vec<(&str, Action, usize)> = vec![
        ("429", Action::Status(429, vec![("Retry-After".into(), "1".into())], bytes::Bytes::new()), 1),
        ("500", unauthorized(500), 2),
        ("503", unauthorized(503), 2),
        ("dropped connection", Action::DropConnection, 2),
        ("short body", Action::ShortBody(1000), 2),
        ("corrupt byte", Action::CorruptByte(50), 1),
        ("ignored range", Action::IgnoreRange, 3),
        ("wrong content range", Action::WrongContentRange, 1),
    ];
    for (name, action, times) in faults {
        let registry = TestRegistry::builder().start_blocking();
        let (reference, layer) = prepare(&registry);
        let mount = Mount::new(&reference, &[]);
        registry.inject(Fault::times(times, action).path("/blobs/").range_only());
        assert_right(&mount, &layer);
        assert!(mount.finish()["layers"][0]["mode"] == "lazy", "{name}");
    }
}

#[test]
fn a_registry_without_ranges_and_one_that_corrupts_every_range_serve_by_the_whole_layer() {
    if !can_mount() {
        return;
    }
    for action in [Action::IgnoreRange, Action::CorruptByte(10)] {
        let registry = TestRegistry::builder().start_blocking();
        let (reference, layer) = prepare(&registry);
        let mount = Mount::new(&reference, &[]);
        registry.inject(Fault::always(action).range_only());
        assert_right(&mount, &layer);
        mount.finish();
    }
}

#[test]
fn redirects_that_expire_are_followed_anew() {
    if !can_mount() {
        return;
    }
    for expired in [Expired::Forbidden, Expired::ExpiredToken, Expired::Unauthorized] {
        let redirect =
            Redirect { expire_after_uses: Some(2), other_host: true, expired, ..Redirect::default() };
        let registry = TestRegistry::builder().redirect_blobs(redirect).start_blocking();
        let (reference, layer) = prepare(&registry);
        let mount = Mount::new(&reference, &[]);
        assert_right(&mount, &layer);
        mount.finish();
    }
}

#[test]
fn a_registry_that_dies_gives_errors_in_the_end_and_never_wrong_bytes() {
    if !can_mount() {
        return;
    }
    for status in [401, 403, 404] {
        let registry = TestRegistry::builder().start_blocking();
        let (reference, layer) = prepare(&registry);
        let mount = Mount::new(&reference, &["--fetch-timeout", "2"]);
        let first = std::fs::read(mount.path().join("data/0")).unwrap();
        registry.inject(Fault::status(status).path("/blobs/"));
        registry
            .inject(Fault::always(Action::Status(status, Vec::new(), bytes::Bytes::new())).path("/blobs/"));
        let error = std::fs::read(mount.path().join("data/7")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{status}: {error}");
        assert_eq!(std::fs::read(mount.path().join("data/0")).unwrap(), first);
        // The same file, once the registry is well again.
        registry.clear_faults();
        assert_right(&mount, &layer);
        mount.finish();
    }
}

/// The fronts that this machine can mount.
fn fronts() -> impl Iterator<Item = &'static str> {
    ["fuse", "erofs"].into_iter().filter(|front| *front != "erofs" || can_mount_erofs())
}

/// The registry's pod is replaced, and what stands before it answers for it.
#[test]
fn pages_of_an_ingress_are_waited_out_on_both_fronts() {
    if !can_mount() {
        return;
    }
    for front in fronts() {
        for background in [false, true] {
            for (status, content_type, body) in [
                (404, "text/plain", "default backend - 404"),
                (403, "text/html", "<html><h1>403 Forbidden</h1></html>"),
                (200, "text/html", "<html>Log in to the network</html>"),
            ] {
                let registry = TestRegistry::builder().start_blocking();
                let (reference, layer) = prepare(&registry);
                let mut arguments = vec!["--front", front];
                arguments.extend(background.then_some("--background"));
                let mount = Mount::new(&reference, &arguments);
                let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
                registry
                    .inject(Fault::times(5, Action::Status(status, headers, body.into())).path("/blobs/"));
                assert_right(&mount, &layer);
                let report = mount.finish();
                assert_eq!(report["layers"][0]["mode"], "lazy", "{front} {status}: {report}");
            }
        }
    }
}

/// Other tenants fill the disk, or the cache may grow beyond it.
#[test]
fn a_full_disk_costs_the_cache_and_not_the_reads() {
    if !can_mount() {
        return;
    }
    for front in fronts() {
        let registry = TestRegistry::builder().start_blocking();
        let (reference, layer) = prepare(&registry);
        let directory = tempfile::tempdir().unwrap();
        let small = directory.path().join("root/cache");
        std::fs::create_dir_all(&small).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", &small, "tmpfs", flags, Some(c"size=1m")).unwrap();
        let mut command = std::process::Command::new(program("soci-snapshotter-grpc"));
        let mount = Mount::in_directory(&reference, &["--front", front], directory, &mut command).unwrap();
        for _ in 0..3 {
            assert_right(&mount, &layer);
        }
        mount.finish();
        rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// Replaces the blobs of the index in the registry with what `damage` makes of them.
fn damage_ztoc(registry: &TestRegistry, reference: &str, damage: impl Fn(&mut Vec<u8>)) {
    let mount = Mount::new(reference, &[]);
    let report = mount.finish();
    let index = report["index"].as_str().unwrap().to_owned();
    let (_, manifest) = registry.manifest("app", &index).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let mut ztoc = registry.blob(digest).unwrap().to_vec();
    damage(&mut ztoc);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), ztoc).unwrap();
    registry.put_blob_file_as(path.path(), digest);
}

#[test]
fn broken_ztocs_make_the_layer_eager_and_the_mount_right() {
    if !can_mount() {
        return;
    }
    for name in ["flipped", "truncated", "empty"] {
        let damage = |ztoc: &mut Vec<u8>| match name {
            "flipped" => ztoc[500] ^= 1,
            "truncated" => ztoc.truncate(1000),
            _ => ztoc.clear(),
        };
        let registry = TestRegistry::builder().start_blocking();
        let (reference, layer) = prepare(&registry);
        damage_ztoc(&registry, &reference, damage);
        let mount = Mount::new(&reference, &[]);
        assert_right(&mount, &layer);
        let report = mount.finish();
        assert_eq!(report["layers"][0]["mode"], "unpacked", "{name}");
        assert!(report["layers"][0]["reason"].as_str().unwrap().contains("zTOC"), "{name}: {report}");
    }
}

#[test]
fn a_corrupt_layer_is_an_error_and_no_wrong_bytes() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let (reference, layer) = prepare(&registry);
    let mut bytes = layer.bytes().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), bytes).unwrap();
    registry.put_blob_file_as(path.path(), &layer.digest);
    let mount = Mount::new(&reference, &[]);
    let (mut right, mut failed) = (0, 0);
    for entry in layer.entries.iter() {
        let path = mount.path().join(String::from_utf8(entry.path.clone()).unwrap());
        let mut read = Vec::new();
        match std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut read)) {
            Ok(_) => {
                assert!(read == entry.content().unwrap().to_vec(), "{}", path.display());
                right += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
                failed += 1;
            }
        }
    }
    assert!(right >= 4 && failed >= 1, "{right} right, {failed} failed");
    mount.finish();
}
