//! `soci create` makes the reference's index manifests, digest for digest.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::collections::BTreeSet;

use common::Soci;
use registry::{Descriptor, Digest};
use testdata::golden;

#[test]
fn every_index_of_the_reference_is_made_again() {
    let golden = golden::load();
    let mut rows = 0;
    for (name, image) in &golden.images {
        let source = format!("oci:{}", golden::image_dir(name).display());
        for row in &image.create {
            let soci = Soci::new();
            let (span, min) = (row.span_size.to_string(), row.min_layer_size.to_string());
            let args = ["create", "--all-platforms", "--span-size", &span, "--min-layer-size", &min, &source];
            let run = soci.run(&args);
            assert_eq!(run.code(), Some(row.exit), "{name} {span} {min}: {}", run.stderr());
            let made: BTreeSet<(String, u64, String)> = soci
                .indexes()
                .iter()
                .map(|index| {
                    let text = |key: &str| index[key].as_str().unwrap().to_owned();
                    (text("digest"), index["size"].as_u64().unwrap(), text("image_manifest"))
                })
                .collect();
            let expected: BTreeSet<(String, u64, String)> = row
                .indexes
                .iter()
                .map(|index| (index.digest.clone(), index.size, index.subject.clone()))
                .collect();
            assert_eq!(made, expected, "{name}, span size {span}, min layer size {min}");
            for index in &row.indexes {
                let info = soci.ok(&["index", "info", &index.digest]);
                let info: serde_json::Value = serde_json::from_str(&info).unwrap();
                assert_eq!(info["layers"].as_array().unwrap().len(), index.ztocs);
            }
            rows += 1;
        }
    }
    assert!(rows >= 9, "only {rows} rows of golden.json were looked at");
}

#[test]
fn every_ztoc_of_the_reference_is_made_again() {
    let golden = golden::load();
    let source = format!("oci:{}", golden::image_dir("all-layers").display());
    for span in [65536u64, 4_194_304] {
        let soci = Soci::new();
        let args = [
            "create",
            "--min-layer-size=0",
            &format!("--span-size={span}"),
            "--platform=linux/amd64",
            &source,
        ];
        let stdout = soci.ok(&args);
        for (name, layer) in &golden.layers {
            let Some(ztoc) = layer.ztoc.get(&span) else { continue };
            let line = format!("layer {} -> ztoc {}", layer.digest, ztoc.digest);
            assert!(stdout.lines().any(|found| found == line), "{name}: no line {line:?} in\n{stdout}");
        }
    }
}

/// An OCI layout with one image of these golden layers.
fn layout(dir: &std::path::Path, layers: &[&str]) -> String {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    };
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    put(config);
    let mut descriptors = Vec::new();
    for name in layers {
        let bytes = golden::layer(name);
        put(&bytes);
        let media_type = if name.ends_with(".gz") { "tar+gzip" } else { "tar" };
        descriptors.push(Descriptor::of(format!("application/vnd.oci.image.layer.v1.{media_type}"), &bytes));
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": Descriptor::of("application/vnd.oci.image.config.v1+json", config),
        "layers": descriptors,
    })
    .to_string();
    put(manifest.as_bytes());
    let entry = Descriptor::of("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(
        dir.join("index.json"),
        serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string(),
    )
    .unwrap();
    format!("oci:{}", dir.display())
}

#[test]
fn refused_layers_are_left_out_and_the_others_are_indexed() {
    let golden = golden::load();
    let mut layers: Vec<&str> = golden.refused.keys().map(String::as_str).collect();
    layers.insert(1, "gnu.tar.gz");
    layers.push("plain.tar");
    let soci = Soci::new();
    let source = layout(&soci.dir().join("layout"), &layers);
    let run = soci.run(&["create", "--min-layer-size=0", "--span-size=65536", &source]);
    let stdout = run.ok();
    let stderr = run.stderr();
    for (name, refused) in &golden.refused {
        let warning = format!(
            "soci: warning: layer {} cannot be indexed and is left out of the index: ",
            refused.digest
        );
        let reasons = common::after(&stderr, &warning);
        assert!(matches!(reasons[..], [reason] if !reason.is_empty()), "{name}: {stderr}");
    }
    assert_eq!(stderr.lines().count(), golden.refused.len(), "{stderr}");
    for name in ["gnu.tar.gz", "plain.tar"] {
        let layer = &golden.layers[name];
        assert!(
            stdout.contains(&format!("layer {} -> ztoc {}", layer.digest, layer.ztoc[&65536].digest)),
            "{stdout}"
        );
    }
    assert_eq!(soci.indexes().len(), 1);
    let index = soci.ok(&["index", "info", soci.indexes()[0]["digest"].as_str().unwrap()]);
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["layers"].as_array().unwrap().len(), 2);
}

#[test]
fn an_image_of_refused_layers_only_has_no_index() {
    let soci = Soci::new();
    let source = layout(&soci.dir().join("layout"), &["truncated.tar.gz", "global-pax.tar.gz"]);
    let stderr = soci.err(&["create", "--min-layer-size=0", &source]);
    assert!(
        stderr.contains("soci: no ztocs created, all layers either skipped or produced errors"),
        "{stderr}"
    );
    assert!(soci.indexes().is_empty());
}
