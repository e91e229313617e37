//! `soci rebuild-db`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::Soci;
use registry::{Descriptor, Digest};
use serde_json::{Value, json};
use soci_index::manifest::{IndexManifest, IndexVersion};
use testdata::containerd::Containerd as Server;
use testdata::docker_registry::DockerRegistry;
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder, Texture};

const CREATE: [&str; 5] =
    ["create", "--min-layer-size=0", "--platform=linux/amd64", "--prefetch-file=big", "--quiet"];

fn image() -> Image {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::made("big", Texture::Text, 1, 300_000));
    ImageBuilder::new().layer(layer.finish()).build()
}

fn indexed() -> (Soci, Image, String) {
    let (soci, image) = (Soci::new(), image());
    image.write_layout(soci.dir().join("layout"), "v1");
    let index = soci.ok(&[&CREATE[..], &["oci:layout"]].concat());
    (soci, image, index.trim().to_owned())
}

fn blob(soci: &Soci, digest: &str) -> PathBuf {
    soci.root().join("content/blobs/sha256").join(&digest["sha256:".len()..])
}

fn put(soci: &Soci, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes).to_string();
    fs::write(blob(soci, &digest), bytes).unwrap();
    digest
}

fn rebuild(soci: &Soci) -> String {
    let run = soci.run(&["rebuild-db"]);
    assert_eq!(run.ok(), "");
    run.stderr()
}

fn counts(dropped: usize, indexes: usize, artifacts: usize) -> String {
    format!(
        "soci: {dropped} records dropped, {indexes} of indexes and {artifacts} of zTOCs and prefetch artifacts added\n"
    )
}

fn lists(soci: &Soci) -> [String; 3] {
    [["index", "ls", "-q"], ["ztoc", "ls", "--json"], ["prefetch", "ls", "--json"]].map(|args| soci.ok(&args))
}

#[test]
fn a_lost_database_is_made_again_from_the_blobs() {
    let (soci, image, index) = indexed();
    assert_eq!(rebuild(&soci), counts(0, 0, 0));
    let [_, ztocs, _] = lists(&soci);
    fs::remove_file(soci.root().join("artifacts.redb")).unwrap();
    assert_eq!(soci.indexes().len(), 0);
    assert_eq!(rebuild(&soci), counts(0, 1, 2));
    assert_eq!(rebuild(&soci), counts(0, 0, 0), "nothing is added twice");
    let listed = &soci.indexes()[0];
    assert_eq!((&listed["digest"], &listed["version"]), (&json!(index), &json!("v1")));
    assert_eq!(listed["image_manifest"], image.digest());
    assert_eq!(lists(&soci)[1], ztocs);
    assert!(lists(&soci)[2].contains("\"TotalSpans\": "));

    // Nobody knows who built it: it is not used for another index, until it was built here.
    let create =
        |soci: &Soci| soci.ok(&["create", "--min-layer-size=0", "--platform=linux/amd64", "oci:layout"]);
    assert!(!create(&soci).contains("(already exists)"));
    assert!(create(&soci).contains("(already exists)"));
    soci.ok(&["index", "rm", &index]);
}

#[test]
fn records_without_a_blob_are_dropped() {
    let (soci, _, index) = indexed();
    let ztocs: Value = serde_json::from_str(&lists(&soci)[1]).unwrap();
    fs::remove_file(blob(&soci, ztocs[0]["digest"].as_str().unwrap())).unwrap();
    assert_eq!(rebuild(&soci), counts(1, 0, 0));
    fs::remove_file(blob(&soci, &index)).unwrap();
    assert_eq!(rebuild(&soci), counts(1, 0, 0));
    let [indexes, ztocs, prefetches] = lists(&soci);
    assert_eq!((indexes.as_str(), ztocs.as_str()), ("", "[]\n"));
    assert_ne!(prefetches, "[]\n");
}

/// The image of a version 2 index is found where its manifest names the index, and its platform in the image index.
#[test]
fn version_2_indexes_are_found() {
    let (soci, image, v1) = indexed();
    let index = IndexManifest::parse(&fs::read(blob(&soci, &v1)).unwrap()).unwrap();
    let index = IndexManifest { version: IndexVersion::V2, subject: None, ..index };
    let alone = IndexManifest { blobs: index.blobs[..1].to_vec(), ..index.clone() };
    let index = put(&soci, &index.encode());
    let alone = put(&soci, &alone.encode());
    let mut manifest: Value = serde_json::from_slice(&image.manifest()).unwrap();
    manifest["annotations"] = json!({"com.amazon.soci.index-digest": index});
    let manifest = manifest.to_string();
    let manifest_digest = put(&soci, manifest.as_bytes());
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let entry = json!({
        "mediaType": oci, "digest": index, "size": 1, "artifactType": "application/vnd.amazon.soci.index.v2+json",
        "platform": {"os": "linux", "architecture": "amd64"},
    });
    let image_entry = Descriptor::of(oci, manifest.as_bytes());
    let root = json!({"schemaVersion": 2, "manifests": [image_entry, entry]}).to_string();
    let root = put(&soci, root.as_bytes());

    assert_eq!(rebuild(&soci), counts(0, 2, 0));
    let found = |digest: &str| soci.indexes().into_iter().find(|row| row["digest"] == digest).unwrap();
    let row = found(&index);
    assert_eq!(
        (&row["version"], &row["platform"], &row["image_manifest"], &row["image_digest"]),
        (&json!("v2"), &json!("linux/amd64"), &json!(manifest_digest), &json!(root))
    );
    let row = found(&alone);
    assert_eq!((&row["version"], &row["image_digest"]), (&json!("v2"), &Value::Null));
    assert!(soci.ok(&["index", "ls"]).contains("    v2    "));
    soci.ok(&["index", "rm", &alone]);
}

#[test]
fn junk_among_the_blobs_is_passed_over() {
    let (soci, _, index) = indexed();
    fs::remove_file(soci.root().join("artifacts.redb")).unwrap();
    for junk in [
        &b"{}"[..],
        b"{\"schemaVersion\":2",
        b"{\"config\":{\"mediaType\":\"application/vnd.amazon.soci.index.v1+json\"}}",
        b"{\"manifests\":[{\"digest\":\"sha256:../../x\"}]}",
        b"{\"layers\":[],\"annotations\":{\"com.amazon.soci.index-digest\":\"\xff\"}}",
        b"",
    ] {
        put(&soci, junk);
    }
    let named = |byte: char| blob(&soci, &format!("sha256:{}", byte.to_string().repeat(64)));
    // An index under a wrong name, a directory, a file of a terabyte, and one that is not named by a digest.
    fs::copy(blob(&soci, &index), named('a')).unwrap();
    fs::create_dir(named('b')).unwrap();
    fs::File::create(named('c')).unwrap().set_len(1 << 40).unwrap();
    fs::write(named('d').with_file_name("x"), "{").unwrap();
    assert_eq!(rebuild(&soci), counts(0, 1, 2));
    assert_eq!(soci.ok(&["index", "ls", "-q"]), format!("{index}\n"));
}

#[test]
fn indexes_in_containerd_are_found_with_the_names_of_their_images() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let image = image();
    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path(), "v1");
    let reference = registry.copy(&format!("oci:{}:v1", layout.path().display()), "app:v1");
    server.ok(&["content", "fetch", "--plain-http", &reference]);
    let soci = Soci::with_containerd(&server.address());
    let index = soci.ok(&[&CREATE[..], &[&reference]].concat());
    let before = soci.indexes();
    fs::remove_file(soci.root().join("artifacts.redb")).unwrap();
    assert_eq!(rebuild(&soci), counts(0, 1, 2));
    let after = soci.indexes();
    for key in ["digest", "image_ref", "image_manifest", "image_digest", "platform", "version", "size"] {
        assert_eq!(before[0][key], after[0][key], "{key}");
    }
    // While containerd does not answer, nobody knows.
    drop(server);
    let stderr = rebuild(&soci);
    assert!(stderr.contains("0 records dropped") && stderr.contains("3 records speak of"), "{stderr}");
    assert_eq!(soci.ok(&["index", "ls", "-q"]), index);
    assert!(rebuild_without_containerd(&soci).starts_with("soci: 3 records dropped"));
}

fn rebuild_without_containerd(soci: &Soci) -> String {
    soci.run(&["--content-store=soci", "rebuild-db"]).stderr()
}
