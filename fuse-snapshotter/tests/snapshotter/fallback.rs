//! Images whose index is missing, incomplete or wrong: the container starts all the same, and the status says why.

use std::time::Duration;

use testdata::image::host::HostFiles;
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::TestRegistry;

use crate::container::Container;
use crate::daemon::index;
use crate::node::{Node, Pull};

/// A shell, a layer with large files, and a small layer that changes some of them.
pub(crate) fn image() -> Image {
    image_of([Compression::GZIP; 3])
}

/// The same, with its layers compressed like this.
pub(crate) fn image_of([first, second, third]: [Compression; 3]) -> Image {
    let mut shell = HostFiles::new();
    shell.binary("/bin/sh").binary("/bin/sleep").binary("/usr/bin/sha256sum").binary("/bin/cat");
    let mut large = LayerBuilder::new(second);
    large.add(Entry::dir("data"));
    for number in 0..8 {
        large.add(Entry::made(format!("data/{number}"), Texture::Random, number, 1 << 20));
    }
    let mut small = LayerBuilder::new(third);
    small.add(Entry::dir("data")).add(Entry::whiteout("data/3")).add(Entry::file("data/4", "changed\n"));
    let image = ImageBuilder::new().layer(shell.layer(first));
    image.layer(large.finish()).layer(small.finish()).cmd(&["/bin/sh", "-c", COMMAND]).build()
}

/// Says what it sees of `/data`, and stays.
const COMMAND: &str = "cd /data; echo *; cat 4; sha256sum 7; echo ready; exec sleep 1000";

/// Runs the image and looks at what it says.
pub(crate) fn assert_runs(node: &Node, how: Pull, reference: &str, image: &Image) {
    let mut container = Container::run(node, how.namespace(), reference);
    container.wait_for("0 1 2 4 5 6 7", Duration::from_secs(60));
    container.wait_for("changed", Duration::from_secs(60));
    let digest = image.layers()[1].entries[8].content().unwrap().digest();
    container.wait_for(digest.trim_start_matches("sha256:"), Duration::from_secs(60));
    container.wait_for("ready", Duration::from_secs(60));
}

/// The manifest of the image's only index, as text and parsed.
fn index_manifest(registry: &TestRegistry, image: &Image) -> serde_json::Value {
    let repository = "app";
    let mut found = Vec::new();
    for request in registry.requests().iter().filter(|request| request.method == "PUT") {
        let Some((_, digest)) = request.path.split_once("/manifests/") else { continue };
        if let Some((_, bytes)) = registry.manifest(repository, digest) {
            let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            if manifest["subject"]["digest"] == image.digest() {
                found.push(manifest);
            }
        }
    }
    found.pop().expect("an index was pushed")
}

/// What is done to a blob.
type Damage = fn(&mut Vec<u8>);

/// Puts other bytes in the place of a blob.
fn replace(registry: &TestRegistry, digest: &str, damage: Damage) {
    let mut bytes = registry.blob(digest).unwrap().to_vec();
    damage(&mut bytes);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    registry.put_blob_file_as(file.path(), digest);
}

fn prepare(arguments: Option<&[&str]>) -> Option<(Node, TestRegistry, Image, String)> {
    let node = Node::start()?;
    let registry = TestRegistry::builder().start_blocking();
    let image = image();
    image.put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    if let Some(arguments) = arguments {
        index(&reference, arguments);
    }
    Some((node, registry, image, reference))
}

#[test]
fn without_an_index_containerd_does_it() {
    for how in [Pull::Cri, Pull::Soci] {
        let Some((node, _registry, image, reference)) = prepare(None) else { return };
        node.pull(how, &reference);
        assert_runs(&node, how, &reference, &image);
        let modes = node.daemon.modes(&reference);
        assert_eq!(modes.len(), 3);
        assert!(modes.iter().all(|(mode, why)| mode == "containerd" && !why.is_empty()), "{modes:?}");
        assert_eq!(node.daemon.logged("defer-snapshot-runtime", "true"), 3);
        // Once for the image, and not again for each of its layers.
        assert_eq!(node.daemon.logged("level", "warning"), 1, "{}", node.daemon.log());
    }
}

#[test]
fn layers_without_a_ztoc_are_unpacked_by_us() {
    let Some((node, _registry, image, reference)) = prepare(Some(&["--min-layer-size", "5000000"])) else {
        return;
    };
    node.pull(Pull::Cri, &reference);
    assert_runs(&node, Pull::Cri, &reference, &image);
    let modes = node.daemon.modes(&reference);
    let words: Vec<_> = modes.iter().map(|(mode, _)| mode.as_str()).collect();
    assert_eq!(words, ["eager", "lazy", "eager"]);
    assert!(modes.iter().all(|(mode, why)| (mode == "lazy") == why.is_empty()), "{modes:?}");
    assert_eq!(node.daemon.logged("local-snapshot-prepared", "true"), 2);
}

#[test]
fn broken_ztocs_make_layers_eager() {
    let damages: [(&str, Damage); 3] = [
        ("flipped", |bytes| bytes[500] ^= 1),
        ("truncated", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
    ];
    for (name, damage) in damages {
        let Some((node, registry, image, reference)) = prepare(Some(&["--min-layer-size", "0"])) else {
            return;
        };
        let manifest = index_manifest(&registry, &image);
        let ztoc = manifest["layers"][1]["digest"].as_str().unwrap();
        replace(&registry, ztoc, damage);
        node.pull(Pull::Cri, &reference);
        assert_runs(&node, Pull::Cri, &reference, &image);
        let modes = node.daemon.modes(&reference);
        let words: Vec<_> = modes.iter().map(|(mode, _)| mode.as_str()).collect();
        assert_eq!(words, ["lazy", "eager", "lazy"], "{name}: {modes:?}");
        assert!(!modes[1].1.is_empty(), "{name}: {modes:?}");
    }
}

/// An index of nonsense is no index.
#[test]
fn a_broken_index_is_none() {
    for text in ["{", "{}", r#"{"schemaVersion":2,"layers":[{"digest":"nonsense","size":-1}]}"#, ""] {
        let Some((node, registry, image, reference)) = prepare(None) else { return };
        let mut manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.amazon.soci.index.v1+json",
            "config": {
                "mediaType": "application/vnd.amazon.soci.index.v1+json",
                "digest": testdata::digest::sha256(b"{}"),
                "size": 2,
            },
            "layers": [],
            "subject": {
                "mediaType": image.media_type(),
                "digest": image.digest(),
                "size": image.manifest().len(),
            },
        });
        manifest["layers"] = serde_json::json!([{
            "mediaType": "application/octet-stream",
            "digest": testdata::digest::sha256(b"no such zTOC"),
            "size": 1_u64 << 50,
            "annotations": { "com.amazon.soci.image-layer-digest": image.layers()[1].digest },
        }]);
        registry.put_blob("{}");
        let bytes = manifest.to_string();
        registry.put_manifest(
            "app",
            &testdata::digest::sha256(bytes.as_bytes()),
            "application/vnd.oci.image.manifest.v1+json",
            bytes.clone(),
        );
        // One that the referrers API lists and that is then something else.
        let fault =
            testdata::registry::Action::Status(200, Vec::new(), bytes::Bytes::from_static(text.as_bytes()));
        if !text.is_empty() {
            let digest = testdata::digest::sha256(bytes.as_bytes());
            registry.inject(testdata::registry::Fault::always(fault).path(&format!("/manifests/{digest}")));
        }
        node.pull(Pull::Cri, &reference);
        assert_runs(&node, Pull::Cri, &reference, &image);
        let modes = node.daemon.modes(&reference);
        assert!(modes.iter().all(|(mode, why)| mode != "lazy" && !why.is_empty()), "{text:?}: {modes:?}");
    }
}

/// The zTOCs of another image's layers, under the digests of this one's.
#[test]
fn ztocs_of_other_layers_make_layers_eager_or_are_found_out() {
    let Some((node, registry, image, reference)) = prepare(Some(&["--min-layer-size", "0"])) else { return };
    let mut manifest = index_manifest(&registry, &image);
    let layers = manifest["layers"].as_array_mut().unwrap();
    let (first, second) = (layers[0]["digest"].clone(), layers[1]["digest"].clone());
    let sizes = (layers[0]["size"].clone(), layers[1]["size"].clone());
    (layers[0]["digest"], layers[1]["digest"]) = (second, first);
    (layers[0]["size"], layers[1]["size"]) = (sizes.1, sizes.0);
    let bytes = manifest.to_string();
    let digest = testdata::digest::sha256(bytes.as_bytes());
    for old in registry.requests().iter().filter(|request| request.method == "PUT") {
        if let Some((_, old)) = old.path.split_once("/manifests/")
            && old.starts_with("sha256:")
            && old != image.digest()
        {
            registry.remove_manifest("app", old);
        }
    }
    registry.put_manifest("app", &digest, "application/vnd.oci.image.manifest.v1+json", bytes);
    node.pull(Pull::Cri, &reference);
    assert_runs(&node, Pull::Cri, &reference, &image);
    let modes = node.daemon.modes(&reference);
    assert!(modes[..2].iter().all(|(mode, why)| mode != "lazy" && !why.is_empty()), "{modes:?}");
}
