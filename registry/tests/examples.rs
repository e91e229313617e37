//! The examples do what their documentation says, on golden layers and images.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

#[path = "../examples/local_blob.rs"]
#[expect(dead_code, reason = "an example has a `main` that tests do not call")]
mod local_blob;
#[path = "../examples/read_ranges.rs"]
#[expect(dead_code, reason = "an example has a `main` that tests do not call")]
mod read_ranges;

use testdata::golden;

#[tokio::test]
async fn a_range_of_a_local_file_is_read() {
    let path = golden::layer_path("plain.tar").to_str().unwrap().to_owned();
    let mut out = Vec::new();
    local_blob::run(&[path.clone(), "257".to_owned(), "5".to_owned()], &mut out).await.unwrap();
    assert_eq!(out, b"ustar");
    let beyond = [path, "0".to_owned(), "1000000000".to_owned()];
    assert!(local_blob::run(&beyond, &mut out).await.unwrap_err().to_string().contains("1000000000"));
}

#[tokio::test]
async fn the_first_bytes_of_each_layer_are_read_from_a_registry() {
    let layout = golden::image_dir("docker").to_str().unwrap().to_owned();
    let mut out = Vec::new();
    read_ranges::run(&[layout], &mut out).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    let layers = golden::load().layers;
    let read: Vec<_> = out.lines().filter(|line| line.starts_with("layer")).collect();
    assert!(out.starts_with("manifest sha256:") && !read.is_empty(), "{out}");
    for line in read {
        assert!(
            line.contains(": 64 of ") && layers.values().any(|layer| line.contains(&layer.digest)),
            "{line}"
        );
    }
}
