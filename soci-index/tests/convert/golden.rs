//! What the reference makes is made here, digest for digest.

use registry::Digest;
use soci_index::oci::ImageIndex;
use testdata::golden;

use crate::common::Soci;

#[test]
fn every_converted_image_of_the_reference_is_made_again() {
    let golden = golden::load();
    let mut rows = 0;
    for (name, image) in &golden.images {
        for row in &image.convert {
            let soci = Soci::new();
            let (span, min) = (row.span_size.to_string(), row.min_layer_size.to_string());
            let source = golden::image_dir(name);
            let mut args = vec!["convert", "--standalone", "--format=oci-dir", "--all-platforms", "-q"];
            args.extend(["--span-size", &span, "--min-layer-size", &min]);
            args.extend(row.flags.iter().map(String::as_str));
            args.extend([source.to_str().unwrap(), "out"]);
            let digest = soci.ok(&args).trim().to_owned();

            let path = soci.dir().join("out/blobs/sha256").join(&digest[7..]);
            let mut root = ImageIndex::parse(&std::fs::read(path).unwrap()).unwrap();
            assert_eq!(root.manifests.len(), row.manifests.len());
            for (made, expected) in root.manifests.iter_mut().zip(&row.manifests) {
                assert_eq!(made.digest.as_str(), expected.digest, "{name} {span} {min}");
                assert_eq!(made.artifact_type, expected.artifact_type);
                // The one difference that is meant: the reference loses what an attestation is about.
                if made.annotations.contains_key("vnd.docker.reference.type") {
                    assert!(expected.annotations.is_empty());
                    assert_eq!(made.annotations["vnd.docker.reference.digest"], row.manifests[0].digest);
                    made.annotations.clear();
                }
                assert_eq!(made.annotations, expected.annotations);
            }
            let bytes = root.encode();
            assert_eq!(Digest::of(&bytes).as_str(), row.result.digest, "{name} {span} {min}");
            if name != "multi-platform" {
                assert_eq!(digest, row.result.digest);
            }
            rows += 1;
        }
    }
    assert!(rows >= 12, "only {rows} rows of golden.json were looked at");
}
