//! What becomes of the parts of an image that get no index.

use std::path::Path;

use registry::Digest;
use serde_json::{Value, json};
use testdata::image::{Compression, Entry, ImageBuilder, IndexBuilder, LayerBuilder, MediaTypes};
use testdata::registry::TestRegistry;

use crate::common::Soci;
use crate::{CONVERT, convert, document, image};

/// Writes a document into a layout, and returns its descriptor.
fn put(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The image index of a layout, which is changed and put in its place.
fn edit_root(layout: &Path, change: impl FnOnce(&mut Value)) {
    let path = layout.join("index.json");
    let mut listed: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut root = document(layout, listed["manifests"][0]["digest"].as_str().unwrap());
    change(&mut root);
    let media_type = listed["manifests"][0]["mediaType"].as_str().unwrap().to_owned();
    let entry = put(layout, &media_type, root.to_string().as_bytes());
    listed["manifests"][0]["digest"] = entry["digest"].clone();
    listed["manifests"][0]["size"] = entry["size"].clone();
    std::fs::write(&path, listed.to_string()).unwrap();
}

fn entries(layout: &Path, digest: &str) -> Vec<Value> {
    document(layout, digest)["manifests"].as_array().unwrap().clone()
}

#[test]
fn what_gets_no_index_keeps_its_bytes() {
    let soci = Soci::new();
    let layout = soci.dir().join("layout");
    let (amd64, arm64) = (image(1, "linux/amd64"), image(2, "linux/arm64"));
    IndexBuilder::new().image(&amd64).image(&arm64).build().write_layout(&layout, "v1");
    // Neither canonical nor free of fields that nobody knows.
    let config = put(&layout, "application/vnd.oci.image.config.v1+json", b"{}");
    let statement = put(&layout, "application/vnd.in-toto+json", b"{\"_type\": 1}");
    let attestation = serde_json::to_vec_pretty(&json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [statement], "future": [1],
    }))
    .unwrap();
    let mut about = put(&layout, OCI_MANIFEST, &attestation);
    about["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    about["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": amd64.digest(),
        "other": "kept",
    });
    let mut other = about.clone();
    other["annotations"]["vnd.docker.reference.digest"] = arm64.digest().into();
    let artifact =
        json!({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [statement]});
    let artifact =
        put(&layout, "application/vnd.oci.artifact.manifest.v1+json", artifact.to_string().as_bytes());
    edit_root(&layout, |root| {
        root["manifests"].as_array_mut().unwrap().extend([about.clone(), other.clone(), artifact.clone()]);
        root["annotations"] = json!({"org.example": "kept <&>"});
    });

    let args = ["convert", "--platform=linux/amd64", "--min-layer-size=0", "oci:layout", "oci:made"];
    let digest = convert(&soci, &args);
    let made = soci.dir().join("made");
    assert_eq!(document(&made, &digest)["annotations"], json!({"org.example": "kept <&>"}));
    let entries = entries(&made, &digest);
    assert_eq!(entries.len(), 6);
    // The platform that nobody asked for, the attestation about it and the artifact are listed as they were.
    let same = |a: &Value, b: &Value| a.as_object().unwrap() == b.as_object().unwrap();
    assert_eq!(entries[1]["digest"], arm64.digest());
    assert!(same(&entries[3], &other), "{}", entries[3]);
    assert!(same(&entries[4], &artifact), "{}", entries[4]);
    // The attestation about the image that changed follows it, and its bytes stay.
    about["annotations"]["vnd.docker.reference.digest"] = entries[0]["digest"].clone();
    assert!(same(&entries[2], &about), "{}", entries[2]);
    let kept =
        std::fs::read(made.join("blobs/sha256").join(&about["digest"].as_str().unwrap()[7..])).unwrap();
    assert_eq!(kept, attestation);
    // And all that they name has come along.
    assert!(made.join("blobs/sha256").join(&statement["digest"].as_str().unwrap()[7..]).exists());
    assert_eq!(convert(&soci, &[&args[..3], &["oci:made", "oci:made"]].concat()), digest);
}

#[test]
fn docker_images_become_oci_images() {
    let soci = Soci::new();
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::file("hello", "hello\n"));
    let docker = ImageBuilder::new().media_types(MediaTypes::Docker).layer(layer.finish()).build();
    let list = IndexBuilder::new().media_types(MediaTypes::Docker).image(&docker).build();
    list.write_layout(soci.dir().join("layout"), "v1");
    let digest = convert(&soci, &[&CONVERT[..], &["oci:layout", "oci:made"]].concat());
    let made = soci.dir().join("made");
    let root = document(&made, &digest);
    assert_eq!(root["mediaType"], OCI_INDEX);
    assert_eq!(root["manifests"][0]["mediaType"], OCI_MANIFEST);
    let manifest = document(&made, root["manifests"][0]["digest"].as_str().unwrap());
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    // Layers keep their types, which the SOCI index repeats.
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
}

#[test]
fn an_index_within_the_index_stays_one() {
    let soci = Soci::new();
    let inner = IndexBuilder::new().image(&image(2, "linux/arm64")).annotation("inner", "kept").build();
    let untouched = IndexBuilder::new().image(&image(3, "linux/s390x")).build();
    let outer = IndexBuilder::new().image(&image(1, "linux/amd64")).index(&inner).index(&untouched).build();
    outer.write_layout(soci.dir().join("layout"), "v1");
    let args =
        ["convert", "--platform=linux/amd64,linux/arm64", "--min-layer-size=0", "oci:layout", "oci:made"];
    let digest = convert(&soci, &args);
    let made = soci.dir().join("made");
    let entries = entries(&made, &digest);
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[2]["digest"], untouched.digest());
    let nested = document(&made, entries[1]["digest"].as_str().unwrap());
    assert_eq!(nested["annotations"]["inner"], "kept");
    assert_eq!(nested["manifests"][0]["annotations"]["com.amazon.soci.index-digest"], entries[4]["digest"]);
}

#[test]
fn what_the_source_lacks_is_not_listed_and_said() {
    let soci = Soci::new();
    let registry = TestRegistry::builder().start_blocking();
    let arm64 = image(2, "linux/arm64");
    IndexBuilder::new()
        .image(&image(1, "linux/amd64"))
        .image(&arm64)
        .build()
        .put_into(&registry, "app", "v1");
    registry.remove_manifest("app", arm64.digest());
    let (from, to) = (format!("{}/app:v1", registry.host()), format!("{}/app:soci", registry.host()));
    let run = soci.run(&["convert", "--min-layer-size=0", "--platform=linux/amd64", &from, &to]);
    run.ok();
    assert!(run.stderr().contains(arm64.digest()) && run.stderr().contains("without it"), "{}", run.stderr());
    let (_, root) = registry.manifest("app", "soci").unwrap();
    let root: Value = serde_json::from_slice(&root).unwrap();
    assert_eq!(root["manifests"].as_array().unwrap().len(), 2);
    let all = convert(&soci, &["convert", "--min-layer-size=0", "--all-platforms", &from, &to]);
    assert_eq!(registry.manifest("app", "soci").map(|(_, root)| Digest::of(&root).to_string()), Some(all));
    // A platform that was asked for has to be there.
    let error = soci.err(&["convert", "--min-layer-size=0", "--platform=linux/arm64", &from, &to]);
    assert!(error.contains(arm64.digest()), "{error}");
}

#[test]
fn an_image_that_gets_no_index_is_not_converted() {
    let soci = Soci::new();
    let registry = TestRegistry::builder().start_blocking();
    image(1, "linux/amd64").put_into(&registry, "app", "v1");
    let (from, to) = (format!("{}/app:v1", registry.host()), format!("{}/app:soci", registry.host()));
    let error = soci.err(&["convert", &from, &to]);
    assert!(error.contains("no ztocs created") && error.contains("--min-layer-size 0"), "{error}");
    assert!(registry.manifest("app", "soci").is_none());
}

#[test]
fn layers_that_may_not_be_distributed_stay_where_they_are() {
    let soci = Soci::new();
    let registry = TestRegistry::builder().check_references(false).start_blocking();
    let app = image(1, "linux/amd64");
    app.write_layout(soci.dir().join("layout"), "v1");
    let layout = soci.dir().join("layout");
    // A base layer of the kind that Windows images have.
    let mut manifest: Value = serde_json::from_slice(&app.manifest()).unwrap();
    let foreign = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": Digest::of(b"elsewhere"), "size": 9, "urls": ["https://example.com/layer"],
    });
    manifest["layers"].as_array_mut().unwrap().insert(0, foreign.clone());
    let entry = put(&layout, OCI_MANIFEST, manifest.to_string().as_bytes());
    std::fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
        .unwrap();
    let to = format!("docker://{}/app:soci", registry.host());
    convert(&soci, &["convert", "--min-layer-size=100", "oci:layout", &to]);
    let (_, root) = registry.manifest("app", "soci").unwrap();
    let root: Value = serde_json::from_slice(&root).unwrap();
    let (_, manifest) = registry.manifest("app", root["manifests"][0]["digest"].as_str().unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["layers"][0], foreign);
    assert!(registry.blob(foreign["digest"].as_str().unwrap()).is_none());
}

#[test]
fn hostile_images_are_refused() {
    let soci = Soci::new();
    let layout = soci.dir().join("layout");
    let reset = || {
        let _ = std::fs::remove_dir_all(&layout);
        IndexBuilder::new().image(&image(1, "linux/amd64")).build().write_layout(&layout, "v1");
    };
    // Indexes without end.
    reset();
    let mut inner =
        put(&layout, OCI_INDEX, json!({"schemaVersion": 2, "manifests": []}).to_string().as_bytes());
    for level in 0..8 {
        let index = json!({"schemaVersion": 2, "level": level, "manifests": [inner.clone(), inner]});
        inner = put(&layout, OCI_INDEX, index.to_string().as_bytes());
    }
    edit_root(&layout, |root| root["manifests"].as_array_mut().unwrap().push(inner));
    let error = soci.err(&["convert", "--min-layer-size=0", "oci:layout", "oci:made"]);
    assert!(error.contains("nested more than"), "{error}");

    // More manifests than anybody reads.
    reset();
    let many: Vec<Value> = (0..1100)
        .map(|n| {
            let manifest =
                json!({"schemaVersion": 2, "n": n, "config": put(&layout, "c", b"{}"), "layers": []});
            put(&layout, OCI_MANIFEST, manifest.to_string().as_bytes())
        })
        .collect();
    edit_root(&layout, |root| root["manifests"].as_array_mut().unwrap().extend(many));
    let error = soci.err(&["convert", "--min-layer-size=0", "oci:layout", "oci:made"]);
    assert!(error.contains("more than 1000 manifests"), "{error}");

    // A manifest that is not what its digest says.
    reset();
    let app = image(1, "linux/amd64");
    let path = layout.join("blobs/sha256").join(&app.digest()[7..]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let error = soci.err(&["convert", "--min-layer-size=0", "oci:layout", "oci:made"]);
    assert!(error.contains("is corrupt"), "{error}");
    assert!(!soci.dir().join("made").exists());
}

/// The configuration of SOCI indexes is two known bytes; who claims that they are more lies.
#[test]
fn a_lie_about_a_known_blob_is_found() {
    let soci = Soci::new();
    let layout = soci.dir().join("layout");
    let app = image(1, "linux/amd64");
    IndexBuilder::new().image(&app).build().write_layout(&layout, "v1");
    let mut config = put(&layout, "application/vnd.oci.image.config.v1+json", b"{}");
    config["size"] = 1_000_000.into();
    let artifact = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []});
    let mut entry = put(&layout, OCI_MANIFEST, artifact.to_string().as_bytes());
    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    edit_root(&layout, |root| root["manifests"].as_array_mut().unwrap().push(entry));
    for to in ["oci:made", "oci-archive:made.tar"] {
        let error = soci.err(&["convert", "--min-layer-size=0", "oci:layout", to]);
        assert!(error.contains("is corrupt"), "{to}: {error}");
    }
    assert!(!soci.dir().join("made.tar").exists());
}

#[test]
fn entries_that_nobody_understands_stay() {
    let soci = Soci::new();
    let layout = soci.dir().join("layout");
    IndexBuilder::new().image(&image(1, "linux/amd64")).build().write_layout(&layout, "v1");
    let module = put(&layout, "application/wasm", b"\0asm");
    edit_root(&layout, |root| root["manifests"].as_array_mut().unwrap().push(module.clone()));
    let digest = convert(&soci, &["convert", "--min-layer-size=0", "oci:layout", "oci:made"]);
    let made = soci.dir().join("made");
    assert_eq!(entries(&made, &digest)[1], module);
    assert!(made.join("blobs/sha256").join(&module["digest"].as_str().unwrap()[7..]).exists());
}

/// Each index of the chain is listed by the root as well, so that none is first met far from it.
#[test]
fn depth_is_counted_along_the_longest_way() {
    let soci = Soci::new();
    let layout = soci.dir().join("layout");
    IndexBuilder::new().image(&image(1, "linux/amd64")).build().write_layout(&layout, "v1");
    let mut chain = Vec::new();
    let mut inner =
        put(&layout, OCI_INDEX, json!({"schemaVersion": 2, "manifests": []}).to_string().as_bytes());
    for level in 0..50 {
        let index =
            json!({"schemaVersion": 2, "annotations": {"level": level.to_string()}, "manifests": [inner]});
        chain.push(inner);
        inner = put(&layout, OCI_INDEX, index.to_string().as_bytes());
    }
    edit_root(&layout, |root| root["manifests"].as_array_mut().unwrap().extend(chain));
    let error = soci.err(&["convert", "--min-layer-size=0", "oci:layout", "oci:made"]);
    assert!(error.contains("nested more than"), "{error}");
}
