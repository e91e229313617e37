//! Zstandard layers: which get a zTOC, under which names the index has it, and that it serves.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use common::{Soci, after};
use serde_json::Value;
use testdata::image::{
    Compression, Entry, Image, ImageBuilder, Layer, LayerBuilder, MediaTypes, Texture, ZstdForm,
};

fn layer(seed: u64, compression: Compression) -> Layer {
    let mut layer = LayerBuilder::new(compression);
    layer.add(Entry::file(format!("small{seed}"), format!("small {seed}\n")));
    layer.add(Entry::made(format!("big{seed}"), Texture::Text, seed, 500_000));
    layer.finish()
}

const MULTI: Compression = Compression::Zstd { level: 3, frame: 20_000, form: ZstdForm::Plain };
const CREATE: [&str; 4] = ["create", "--min-layer-size=0", "--platform=linux/amd64", "--span-size=65536"];

fn create(soci: &Soci, image: &Image, more: &[&str]) -> String {
    image.write_layout(soci.dir().join("layout"), "v1");
    soci.ok(&[&CREATE, more, &["oci:layout"]].concat())
}

/// The index manifest of the only index in the store.
fn manifest(soci: &Soci) -> Value {
    let index = soci.ok(&["index", "list", "-q"]);
    serde_json::from_str(&soci.ok(&["index", "info", index.trim()])).unwrap()
}

#[test]
fn layers_of_many_frames_are_indexed_and_their_files_can_be_read() {
    let soci = Soci::new();
    let layers = [
        layer(1, MULTI),
        layer(2, Compression::ZSTD_SEEKABLE),
        layer(3, Compression::GZIP),
        layer(4, Compression::ZSTD_CHUNKED),
    ];
    let image = layers.iter().cloned().fold(ImageBuilder::new(), ImageBuilder::layer).build();
    let lines = create(&soci, &image, &[]);
    let ztocs = layers
        .each_ref()
        .map(|layer| after(&lines, &format!("layer {} -> ztoc ", layer.digest))[0].to_owned());
    let manifest = manifest(&soci);
    for (position, (layer, ztoc)) in layers.iter().zip(&ztocs).enumerate() {
        let zstd = layer.compression != Compression::GZIP;
        let found = &manifest["layers"][position];
        assert_eq!(found["digest"], *ztoc, "in the image's order");
        let (media_type, prefix) = if zstd {
            ("application/vnd.soci.ztoc.zstd.v1", "soci.ztoc.")
        } else {
            ("application/octet-stream", "com.amazon.soci.")
        };
        assert_eq!(found["mediaType"], media_type);
        let annotations = found["annotations"].as_object().unwrap();
        assert!(annotations.keys().all(|key| key.starts_with(prefix)), "{annotations:?}");
        assert_eq!(annotations[&format!("{prefix}image-layer-digest")], layer.digest);
        assert_eq!(annotations[&format!("{prefix}span-size")], "65536");

        let info: Value = serde_json::from_str(&soci.ok(&["ztoc", "info", ztoc])).unwrap();
        assert!(info["num_spans"].as_u64().unwrap() >= 4, "{info}");
        for entry in layer.entries.iter() {
            let name = String::from_utf8(entry.path.clone()).unwrap();
            let read = soci.run(&["ztoc", "get-file", ztoc, &name]);
            assert!(read.bytes() == entry.content().unwrap().to_vec(), "{name}: {}", read.stderr());
        }
    }
    // All of them are found again.
    let again = create(&soci, &image, &[]);
    assert_eq!(again.matches("(already exists)").count(), 4, "{again}");
    assert_eq!(soci.indexes().len(), 1);
    let listed = soci.ok(&["ztoc", "list", "-q"]);
    assert!(ztocs.iter().all(|ztoc| listed.contains(ztoc)), "{listed}");
}

#[test]
fn a_converted_image_has_its_ztocs_with_it() {
    let soci = Soci::new();
    let image = ImageBuilder::new().layer(layer(1, MULTI)).layer(layer(2, Compression::GZIP)).build();
    image.write_layout(soci.dir().join("layout"), "v1");
    soci.ok(&[&["convert"], &CREATE[1..], &["oci:layout:v1", "oci:converted:v1"]].concat());
    let manifest = manifest(&soci);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.amazon.soci.index.v2+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.soci.ztoc.zstd.v1");
    assert_eq!(manifest["layers"][1]["mediaType"], "application/octet-stream");
    for ztoc in manifest["layers"].as_array().unwrap() {
        let name = ztoc["digest"].as_str().unwrap().replace(':', "/");
        assert!(soci.dir().join("converted/blobs").join(&name).exists(), "{name}");
    }
}

#[test]
fn a_layer_of_one_frame_is_left_out_with_advice() {
    let soci = Soci::new();
    let single = layer(1, Compression::ZSTD_FRAME);
    let image = ImageBuilder::new().layer(single.clone()).layer(layer(2, MULTI)).build();
    image.write_layout(soci.dir().join("layout"), "v1");
    let run = soci.run(&[&CREATE[..], &["oci:layout"]].concat());
    run.ok();
    let said = run.stderr();
    assert!(said.contains(&single.digest) && said.contains("is left out of the index"), "{said}");
    assert!(said.contains("single zstd frame") && said.contains("zstd:chunked"), "{said}");
    assert_eq!(manifest(&soci)["layers"].as_array().unwrap().len(), 1);
    // By itself it gives no index.
    let soci = Soci::new();
    ImageBuilder::new().layer(single).build().write_layout(soci.dir().join("layout"), "v1");
    let said = soci.err(&[&CREATE[..], &["oci:layout"]].concat());
    assert!(said.contains("no ztocs created") && said.contains("single zstd frame"), "{said}");
    // However small it is: it would be read as a whole in any case.
    soci.err(&["create", "--min-layer-size=0", "--platform=linux/amd64", "oci:layout"]);
}

#[test]
fn media_types_of_docker_name_zstd_or_leave_it_open() {
    let soci = Soci::new();
    let (named, open) = (layer(1, MULTI), layer(2, Compression::ZSTD_CHUNKED));
    let image = ImageBuilder::new()
        .media_types(MediaTypes::Docker)
        .layer(named)
        .layer_as(open, "application/vnd.docker.image.rootfs.diff.tar")
        .build();
    create(&soci, &image, &[]);
    let layers = manifest(&soci)["layers"].clone();
    let types: Vec<_> = layers.as_array().unwrap().iter().map(|layer| &layer["mediaType"]).collect();
    assert_eq!(types, ["application/vnd.soci.ztoc.zstd.v1"; 2]);
    assert_eq!(
        layers[0]["annotations"]["soci.ztoc.image-layer-mediaType"],
        "application/vnd.docker.image.rootfs.diff.tar.zstd"
    );
}

#[test]
fn what_is_not_what_its_media_type_says_is_left_out() {
    let soci = Soci::new();
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let image = ImageBuilder::new()
        .layer_as(layer(1, Compression::None), zstd)
        .layer_as(layer(2, Compression::GZIP), zstd)
        .layer(layer(3, MULTI))
        .build();
    image.write_layout(soci.dir().join("layout"), "v1");
    let run = soci.run(&[&CREATE[..], &["oci:layout"]].concat());
    run.ok();
    for bytes in ["uncompressed", "gzip"] {
        let said = format!("the media type is wrong: it says zstd, but the bytes are {bytes}");
        assert_eq!(run.stderr().matches(&said).count(), 1, "{}", run.stderr());
    }
}

/// zstd:chunked as the tools have it whose format it is.
#[test]
fn what_skopeo_makes_is_read() {
    if !testdata::need::available(&[testdata::need::Need::Program("skopeo", "skopeo")]) {
        return;
    }
    let plain = {
        let mut layer = LayerBuilder::new(Compression::None);
        for seed in 0..40 {
            layer.add(Entry::made(format!("text{seed}"), Texture::Text, seed, 1000 * seed));
        }
        layer.add(Entry::made("big", Texture::Random, 5, 3 << 20));
        layer.finish()
    };
    let soci = Soci::new();
    ImageBuilder::new().layer(plain.clone()).build().write_layout(soci.dir().join("plain"), "v1");
    let copied = std::process::Command::new("skopeo")
        .args([
            "copy",
            "-q",
            "--dest-compress",
            "--dest-compress-format=zstd:chunked",
            "oci:plain:v1",
            "oci:layout:v1",
        ])
        .current_dir(soci.dir())
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    soci.ok(&[&CREATE[..], &["oci:layout"]].concat());
    let ztoc = soci.ok(&["ztoc", "list", "-q"]);
    let info: Value = serde_json::from_str(&soci.ok(&["ztoc", "info", ztoc.trim()])).unwrap();
    assert!(info["num_spans"].as_u64().unwrap() > 10, "{info}");
    for entry in plain.entries.iter() {
        let name = String::from_utf8(entry.path.clone()).unwrap();
        let read = soci.run(&["ztoc", "get-file", ztoc.trim(), &name]);
        assert!(read.bytes() == entry.content().unwrap().to_vec(), "{name}: {}", read.stderr());
    }
}

/// What another tool makes of the same tar.
#[test]
fn frames_of_pzstd_are_spans() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    if !testdata::need::available(&[testdata::need::Need::Program("pzstd", "zstd")]) {
        return;
    }
    let plain = {
        let mut layer = LayerBuilder::new(Compression::None);
        layer.add(Entry::made("big", Texture::Random, 5, 20 << 20));
        layer.finish()
    };
    let soci = Soci::new();
    let mut pzstd = Command::new("pzstd");
    let mut child =
        pzstd.args(["-q", "-1", "-p2", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = plain.bytes();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let packed = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    let layer = Layer {
        digest: testdata::digest::sha256(&packed),
        size: packed.len() as u64,
        data: testdata::image::BlobData::Memory(packed.into()),
        compression: MULTI,
        ..plain
    };
    let image = ImageBuilder::new().layer(layer.clone()).build();
    let lines = create(&soci, &image, &[]);
    let prefix = format!("layer {} -> ztoc ", layer.digest);
    let ztoc = after(&lines, &prefix)[0];
    let info: Value = serde_json::from_str(&soci.ok(&["ztoc", "info", ztoc])).unwrap();
    assert!(info["num_spans"].as_u64().unwrap() > 1, "{info}");
    let read = soci.run(&["ztoc", "get-file", ztoc, "big"]);
    assert!(read.bytes() == layer.entries[0].content().unwrap().to_vec());
}
