//! Converting what was converted.

use serde_json::Value;
use testdata::image::IndexBuilder;

use crate::common::Soci;
use crate::{CONVERT, convert, document, image};

#[test]
fn converting_again_changes_nothing() {
    let soci = Soci::new();
    let index = IndexBuilder::new().image(&image(1, "linux/amd64")).image(&image(2, "linux/arm64")).build();
    index.write_layout(soci.dir().join("layout"), "v1");
    image(3, "linux/amd64").write_layout(soci.dir().join("single"), "v1");
    for source in ["layout", "single"] {
        let once = convert(&soci, &[&CONVERT[..], &[&format!("oci:{source}:v1"), "oci:made:once"]].concat());
        let twice = convert(&soci, &[&CONVERT[..], &["oci:made:once", "oci:made:twice"]].concat());
        assert_eq!(once, twice);
        // A name may be converted in place.
        let in_place = convert(&soci, &[&CONVERT[..], &["oci:made:twice", "oci:made:twice"]].concat());
        assert_eq!(once, in_place);
    }
}

#[test]
fn converting_one_platform_keeps_the_indexes_of_the_others() {
    let soci = Soci::new();
    let index = IndexBuilder::new().image(&image(1, "linux/amd64")).image(&image(2, "linux/arm64")).build();
    index.write_layout(soci.dir().join("layout"), "v1");
    let entries = |digest: &str| -> Vec<Value> {
        document(&soci.dir().join("made"), digest)["manifests"].as_array().unwrap().clone()
    };
    let all = entries(&convert(&soci, &[&CONVERT[..], &["oci:layout:v1", "oci:made:all"]].concat()));
    let one = |platform: &str, from: &str, to: &str| {
        let platform = format!("--platform={platform}");
        let args = ["convert", &platform, "--min-layer-size=0", "--span-size=131072", from, to];
        entries(&convert(&soci, &args))
    };
    // arm64 gets another index; amd64's image and index are the very same.
    let changed = one("linux/arm64", "oci:made:all", "oci:made:changed");
    assert_eq!(changed.len(), 4);
    assert_eq!((&changed[0], &changed[2]), (&all[0], &all[2]));
    assert_ne!(changed[1]["digest"], all[1]["digest"]);
    assert_ne!(changed[3]["digest"], all[3]["digest"]);
    let bound = |image: &Value, index: &Value| {
        assert_eq!(image["annotations"]["com.amazon.soci.index-digest"], index["digest"]);
        assert_eq!(index["annotations"]["com.amazon.soci.image-manifest-digest"], image["digest"]);
        let manifest = document(&soci.dir().join("made"), image["digest"].as_str().unwrap());
        assert_eq!(manifest["annotations"]["com.amazon.soci.index-digest"], index["digest"]);
    };
    bound(&changed[0], &changed[2]);
    bound(&changed[1], &changed[3]);

    // One platform after the other is the same as both at once, in another order of indexes at most.
    let first = one("linux/arm64", "oci:layout:v1", "oci:made:step");
    assert_eq!(first.len(), 3);
    let second = one("linux/amd64", "oci:made:step", "oci:made:step");
    bound(&second[0], &second[3]);
    bound(&second[1], &second[2]);
}

/// Older tools lose the artifact types of an index's entries when they copy it.
#[test]
fn an_index_is_replaced_even_if_a_copy_lost_what_it_is() {
    let soci = Soci::new();
    let made = soci.dir().join("made");
    IndexBuilder::new().image(&image(1, "linux/amd64")).build().write_layout(soci.dir().join("layout"), "v1");
    let digest = convert(&soci, &[&CONVERT[..], &["oci:layout:v1", "oci:made"]].concat());
    let mut root = document(&made, &digest);
    root["manifests"][1].as_object_mut().unwrap().remove("artifactType").unwrap();
    let root = root.to_string();
    let copied = registry::Digest::of(root.as_bytes());
    std::fs::write(made.join("blobs/sha256").join(copied.hex()), &root).unwrap();
    let entry = serde_json::json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": copied, "size": root.len(),
    });
    let listed = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    std::fs::write(made.join("index.json"), listed).unwrap();
    assert_eq!(convert(&soci, &[&CONVERT[..], &["oci:made", "oci:again"]].concat()), digest);
}

/// containerd and Docker write two names into a layout; an image is found by either.
#[test]
fn an_image_is_replaced_under_either_of_its_names() {
    let soci = Soci::new();
    let layout = soci.dir().join("layout");
    image(1, "linux/amd64").write_layout(&layout, "v2");
    let path = layout.join("index.json");
    let mut listed: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    listed["manifests"][0]["annotations"]["io.containerd.image.name"] = "docker.io/library/x:v2".into();
    std::fs::write(&path, listed.to_string()).unwrap();
    let name = "oci:layout:docker.io/library/x:v2";
    let once = convert(&soci, &[&CONVERT[..], &[name, name]].concat());
    assert_eq!(convert(&soci, &[&CONVERT[..], &[name, name]].concat()), once);
}
