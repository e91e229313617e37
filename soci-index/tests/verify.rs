//! `soci verify`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets something unexpected stops there")]

mod common;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use common::Soci;
use registry::{Descriptor, Digest};
use serde_json::Value;
use soci_index::manifest::IndexManifest;
use testdata::image::{Compression, Entry, Image, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::registry::TestRegistry;
use ztoc::Ztoc;

fn layer(seed: u64, compression: Compression) -> Layer {
    let mut layer = LayerBuilder::new(compression);
    layer.add(Entry::dir("data"));
    layer.add(Entry::file("data/small", "x").xattr("user.k", "v"));
    layer.add(Entry::made("data/big", Texture::Text, seed, 700_000));
    layer.finish()
}

fn image() -> Image {
    let mut tiny = LayerBuilder::new(Compression::GZIP);
    tiny.add(Entry::file("tiny", "x"));
    ImageBuilder::new()
        .layer(layer(1, Compression::GZIP))
        .layer(tiny.finish())
        .layer(layer(2, Compression::None))
        .build()
}

const BUILD: [&str; 3] = ["--min-layer-size=4096", "--span-size=65536", "--prefetch-file=data/big"];

/// A store with an index of the image in a layout.
fn indexed() -> (Soci, Image, String) {
    let (soci, image) = (Soci::new(), image());
    image.write_layout(soci.dir().join("layout"), "v1");
    let index = soci.ok(&[&["create", "-q", "--optimizations=xattr", "oci:layout"], &BUILD[..]].concat());
    (soci, image, index.trim().to_owned())
}

fn blob(soci: &Soci, digest: &Digest) -> PathBuf {
    soci.root().join("content/blobs/sha256").join(digest.hex())
}

fn put(soci: &Soci, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    fs::write(blob(soci, &digest), bytes).unwrap();
    digest
}

fn manifest(soci: &Soci, index: &str) -> IndexManifest {
    IndexManifest::parse(&fs::read(blob(soci, &index.parse().unwrap())).unwrap()).unwrap()
}

/// What `soci verify` says of another index than the right one: exit status and result.
fn verify_changed(soci: &Soci, bytes: &[u8]) -> (Option<i32>, Value) {
    let index = put(soci, bytes);
    let run = soci.run(&["verify", "--json", "--index", index.as_str(), "oci:layout"]);
    let result: Value = serde_json::from_str(&run.stdout()).unwrap_or_else(|_| panic!("{}", run.stderr()));
    (run.code(), result[0].clone())
}

/// The problems of the index and of its layers.
fn problems(soci: &Soci, bytes: &[u8]) -> String {
    let (code, result) = verify_changed(soci, bytes);
    assert_eq!((code, &result["ok"]), (Some(1), &Value::Bool(false)), "{result}");
    let layers = result["layers"].as_array().unwrap().iter().map(|layer| &layer["problems"]);
    layers.chain([&result["problems"]]).map(|problems| format!("{problems}\n")).collect()
}

#[test]
fn what_was_built_is_right_wherever_it_is() {
    let (soci, image, index) = indexed();
    let [gzip, tiny, plain] = [0, 1, 2].map(|at| image.layers()[at].digest.clone());
    let text = soci.ok(&["verify", "oci:layout"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("soci index {index} (v1, from the artifact store) for linux/amd64"));
    assert!(
        lines[1].starts_with(&format!("  layer {gzip} -> ztoc sha256:")) && lines[1].ends_with(" ok"),
        "{text}"
    );
    assert_eq!(lines[2], format!("  layer {tiny} has no ztoc"));
    assert!(
        lines[3].starts_with(&format!("  layer {plain} -> ztoc sha256:")) && lines[3].ends_with(" ok"),
        "{text}"
    );
    assert_eq!(soci.ok(&["verify", "-q", "oci:layout"]), "");

    // From a registry, by somebody whose store is empty.
    let registry = TestRegistry::builder().start_blocking();
    image.put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    soci.ok(&["push", &reference]);
    let other = Soci::new();
    let json: Value = serde_json::from_str(&other.ok(&["verify", "--json", &reference])).unwrap();
    assert_eq!((&json[0]["origin"], &json[0]["version"]), (&Value::from("image"), &Value::from("v1")));
    let results: Vec<&Value> =
        json[0]["layers"].as_array().unwrap().iter().map(|layer| &layer["result"]).collect();
    assert_eq!(results, ["identical", "no ztoc", "identical"]);

    // Version 2, bound into the image.
    soci.ok(&[&["convert", "oci:layout", "oci:converted:v2"], &BUILD[..]].concat());
    let other = Soci::new();
    let converted = format!("oci:{}/converted:v2", soci.dir().display());
    let text = other.ok(&["verify", &converted]);
    assert!(text.contains(" (v2) for linux/amd64"), "{text}");
}

#[test]
fn an_image_without_index_fails() {
    let soci = Soci::new();
    image().write_layout(soci.dir().join("layout"), "v1");
    assert!(soci.err(&["verify", "oci:layout"]).contains("has no SOCI index"));
    let missing = format!("sha256:{}", "0".repeat(64));
    assert!(soci.err(&["verify", "--index", &missing, "oci:layout"]).contains("there is no SOCI index"));
}

#[test]
fn every_lie_of_an_index_is_found() {
    let (soci, image, index) = indexed();
    let right = manifest(&soci, &index);
    let (code, _) = verify_changed(&soci, &right.encode());
    assert_eq!(code, Some(0));
    let changed = |change: &dyn Fn(&mut IndexManifest)| {
        let mut index = right.clone();
        change(&mut index);
        problems(&soci, &index.encode())
    };

    let spaced = String::from_utf8(right.encode().to_vec()).unwrap().replacen(':', ": ", 1);
    assert!(problems(&soci, spaced.as_bytes()).contains("not in the canonical form"));
    let other = Descriptor::of("application/vnd.oci.image.manifest.v1+json", b"other");
    assert!(changed(&|index| index.subject = Some(other.clone())).contains("its subject is not this image"));
    assert!(
        changed(&|index| index.subject.as_mut().unwrap().size += 1).contains("another size or media type")
    );
    let annotate = |key: &'static str, value: &'static str| {
        changed(&|index| {
            index.blobs[0].annotations.insert(format!("com.amazon.soci.{key}"), value.into());
        })
    };
    assert!(annotate("span-size", "1").contains("gives span size 1, the zTOC 65536"));
    assert!(annotate("image-layer-mediaType", "x").contains("another media type of the layer: x"));
    assert!(annotate("disable-xattrs", "true").contains("it has some"));
    assert!(
        changed(&|index| index.blobs.push(index.blobs[0].clone())).contains("another one is for already")
    );
    assert!(
        changed(&|index| {
            index.blobs[0]
                .annotations
                .insert("com.amazon.soci.image-layer-digest".into(), Digest::of(b"stranger").to_string());
        })
        .contains("belongs to no layer of this image")
    );

    // Artifacts that are not there, or something else.
    assert!(changed(&|index| index.blobs[0].digest = Digest::of(b"nowhere")).contains("it cannot be read"));
    assert!(changed(&|index| index.blobs[0].size += 1).contains("not what the index says"));
    let swapped = changed(&|index| {
        let (digest, size) = (index.blobs[1].digest.clone(), index.blobs[1].size);
        (index.blobs[0].digest, index.blobs[0].size) = (digest, size);
    });
    assert!(swapped.contains("it is for Uncompressed of"), "{swapped}");
    let prefetch = |json: &str| {
        let (digest, size) = (put(&soci, json.as_bytes()), json.len() as u64);
        changed(&|index| (index.blobs[2].digest, index.blobs[2].size) = (digest.clone(), size))
    };
    let artifact =
        |end| format!(r#"{{"version":"1.0","prefetch_spans":[{{"start_span":0,"end_span":{end}}}]}}"#);
    assert!(prefetch(&artifact("1000")).contains("names spans 0 to 1000 of a layer that has"));
    assert!(prefetch(&artifact("-1")).contains("no range of spans"));
    assert!(prefetch("{}").contains("malformed prefetch artifact"));

    // The image's own bytes.
    let layer = soci.dir().join("layout/blobs/sha256").join(&image.layers()[0].digest["sha256:".len()..]);
    let mut bytes = fs::read(&layer).unwrap();
    bytes[5000] ^= 1;
    fs::write(&layer, bytes).unwrap();
    assert!(soci.run(&["verify", "oci:layout"]).stdout().contains("WRONG: "));
    assert!(soci.err(&["verify", "oci:layout"]).contains("1 of 1 platforms failed the check"));
}

/// zTOCs that parse and lie, each by a few bytes.
#[test]
fn every_lie_of_a_ztoc_is_found() {
    let (soci, _, index) = indexed();
    let right = manifest(&soci, &index);
    let verify = |at: usize, change: &dyn Fn(&mut Vec<u8>, &Ztoc)| {
        let mut bytes = fs::read(blob(&soci, &right.blobs[at].digest)).unwrap();
        let ztoc = Ztoc::parse(Bytes::from(bytes.clone())).unwrap();
        assert!(ztoc.spans().len() > 3);
        change(&mut bytes, &ztoc);
        let mut index = right.clone();
        index.blobs[at].digest = put(&soci, &bytes);
        let (code, result) = verify_changed(&soci, &index.encode());
        let layer = &result["layers"][at * 2];
        (code, layer["result"].as_str().unwrap().to_owned(), layer["problems"].to_string())
    };
    let replace = |bytes: &mut Vec<u8>, from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + from.len()].copy_from_slice(to);
    };
    for at in [0, 1] {
        let (code, result, problems) = verify(at, &|bytes, _| replace(bytes, b"data/big", b"data/bag"));
        assert_eq!((code, result.as_str()), (Some(1), "wrong"));
        assert!(problems.contains("entry 2 (data/big) has another name"), "{problems}");
        let (_, _, problems) = verify(at, &|bytes, _| replace(bytes, b"user.k", b"user.j"));
        assert!(problems.contains("(data/small) has another set of PAX records"), "{problems}");
        let (_, _, problems) = verify(at, &|bytes, ztoc| {
            let digest = ztoc.spans().digest(2).unwrap().to_string();
            let other = ztoc.spans().digest(1).unwrap().to_string();
            replace(bytes, digest.as_bytes(), other.as_bytes());
        });
        assert_eq!(problems, r#"["span 2 has another digest in the layer"]"#);
        // Another text with the same meaning: nobody reads the version.
        let (code, result, problems) = verify(at, &|bytes, _| replace(bytes, b"0.9", b"0.8"));
        assert_eq!((code, result.as_str(), problems.as_str()), (Some(0), "equivalent", "[]"));
        // Another tool's, right in itself: built again in its name.
        let (code, result, _) =
            verify(at, &|bytes, _| replace(bytes, b"AWS SOCI CLI v0.2", b"AWS SOCI CLI v0.1"));
        assert_eq!((code, result.as_str()), (Some(0), "identical"));
        let (code, _, _) = verify(at, &|bytes, _| bytes.truncate(bytes.len() / 2));
        assert_eq!(code, Some(1));
    }
    // A window that decodes to something else: its span's own digest is right.
    let (code, _, problems) = verify(0, &|bytes, ztoc| {
        let window = ztoc.window_range(2).unwrap();
        bytes[window].iter_mut().for_each(|byte| *byte ^= 0x55);
    });
    assert_eq!(code, Some(1));
    assert!(problems.contains("checkpoint 2 decodes to something else"), "{problems}");
}
