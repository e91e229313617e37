//! `soci index` and `soci ztoc`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use common::Soci;
use testdata::image::{Compression, Content, Entry, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::TestRegistry;

/// A store with one indexed image; returns the digests of the index, the zTOC and the layer.
fn indexed(soci: &Soci) -> (String, String, String) {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::dir("etc"));
    layer.add(Entry::file("etc/hello.txt", "hello\n"));
    layer.add(Entry::symlink("etc/ln", "hello.txt"));
    layer.add(Entry::symlink("abs", "/etc/ln"));
    layer.add(Entry::hard_link("etc/hard", "etc/hello.txt"));
    layer.add(Entry::symlink("loop", "loop"));
    layer.add(Entry::made("big", Texture::Text, 7, 500_000));
    layer.add(Entry::file("dup", "old"));
    layer.add(Entry::file("dup", "new"));
    let mut odd = b"odd-".to_vec();
    odd.push(0xff);
    layer.add(Entry::file(odd, "odd"));
    layer.add(Entry::file("empty", ""));
    let image = ImageBuilder::new().layer(layer.finish()).build();
    image.write_layout(soci.dir().join("layout"), "v1");
    let index = soci.ok(&["create", "--quiet", "--min-layer-size=0", "--span-size=65536", "oci:layout:v1"]);
    let ztoc = soci.ok(&["ztoc", "list", "-q"]);
    (index.trim().into(), ztoc.trim().into(), image.layers()[0].digest.clone())
}

#[test]
fn index_list_prints_the_references_table() {
    let soci = Soci::new();
    assert_eq!(
        soci.ok(&["index", "list"]),
        "DIGEST    SIZE    IMAGE REF    PLATFORM    MEDIA TYPE    MANIFEST VERSION    CREATED    \n"
    );
    let (index, _, _) = indexed(&soci);
    let table = soci.ok(&["index", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2);
    let column = |name: &str| lines[0].find(name).unwrap();
    assert_eq!(column("SIZE"), 71 + 4);
    assert!(lines[1].starts_with(&index));
    let name = format!("oci:{}/layout:v1", soci.dir().display());
    assert_eq!(&lines[1][column("IMAGE REF")..][..name.len()], name);
    assert!(lines[1][column("PLATFORM")..].starts_with("linux/amd64    "));
    assert!(lines[1][column("MEDIA TYPE")..].starts_with("application/vnd.oci.image.manifest.v1+json    "));
    assert!(lines[1][column("MANIFEST VERSION")..].starts_with("v1  "));
    assert!(lines[1].trim_end().ends_with("s ago") && lines[1].ends_with("    "), "{:?}", lines[1]);

    assert_eq!(soci.ok(&["index", "ls", "-q"]).trim(), index);
    assert_eq!(soci.ok(&["index", "ls", "-q", "--ref", "oci:layout:v1"]).trim(), index);
    assert_eq!(soci.ok(&["index", "ls", "-q", "--ref", &name]).trim(), index);
    assert_eq!(soci.ok(&["index", "ls", "-q", "--ref", "other"]), "");
    assert_eq!(soci.ok(&["index", "ls", "-q", "-p", "linux/s390x"]), "");
}

#[test]
fn newest_index_comes_first() {
    let soci = Soci::new();
    let (first, ..) = indexed(&soci);
    let second = soci.ok(&["create", "-q", "--min-layer-size=0", "oci:layout:v1"]);
    assert_eq!(soci.ok(&["index", "ls", "-q"]), format!("{second}{first}\n"));
}

#[test]
fn index_info_prints_the_manifest() {
    let soci = Soci::new();
    let (index, ztoc, layer) = indexed(&soci);
    let text = soci.ok(&["index", "info", &index]);
    assert!(text.starts_with("{\n  \"schemaVersion\": 2,\n  \"mediaType\":"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["layers"][0]["digest"], ztoc);
    assert_eq!(json["layers"][0]["annotations"]["com.amazon.soci.image-layer-digest"], layer);
    assert!(soci.err(&["index", "info", &ztoc]).contains("of ztoc not SOCI index"));
    assert!(soci.err(&["ztoc", "info", &index]).contains("belongs to a SOCI index"));
    let missing = format!("sha256:{}", "0".repeat(64));
    assert!(soci.err(&["index", "info", &missing]).contains("is not in the store"));
}

#[test]
fn index_rm_frees_space() {
    let soci = Soci::new();
    let blobs = || std::fs::read_dir(soci.root().join("content/blobs/sha256")).unwrap().count();
    let (index, _, _) = indexed(&soci);
    assert_eq!(blobs(), 3);
    let missing = format!("sha256:{}", "0".repeat(64));
    assert!(soci.err(&["index", "rm", &index, &missing]).contains("nothing was removed"));
    assert_eq!(blobs(), 3);
    soci.ok(&["index", "rm", &index]);
    assert_eq!(blobs(), 0);
    assert!(soci.indexes().is_empty());
    assert_eq!(soci.ok(&["ztoc", "list", "-q"]), "");

    indexed(&soci);
    assert!(soci.err(&["index", "rm", "--ref", "other"]).contains("no SOCI index of other"));
    assert_eq!(soci.run(&["index", "rm", "--ref", "oci:layout:v1", &index]).code(), Some(2));
    soci.ok(&["index", "rm", "--ref", "oci:layout:v1"]);
    assert_eq!(blobs(), 0);
}

#[test]
fn ztoc_list_and_info() {
    let soci = Soci::new();
    let (_, ztoc, layer) = indexed(&soci);
    let table = soci.ok(&["ztoc", "ls"]);
    let mut lines = table.lines();
    let header = lines.next().unwrap();
    assert!(header.starts_with("DIGEST ") && header.contains("SIZE    ") && header.ends_with("    "));
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[2]), (ztoc.as_str(), layer.as_str()));
    assert_eq!(soci.ok(&["ztoc", "ls", "-q", "--image-ref", "oci:layout:v1"]).trim(), ztoc);
    assert_eq!(soci.ok(&["ztoc", "ls", "-q", "--ztoc-digest", &ztoc]).trim(), ztoc);
    let zeros = format!("sha256:{}", "0".repeat(64));
    assert_eq!(soci.ok(&["ztoc", "ls", "-q", "--ztoc-digest", &zeros]), "");

    let text = soci.ok(&["ztoc", "info", &ztoc]);
    assert!(
        text.starts_with(
            "{\n  \"version\": \"0.9\",\n  \"build_tool\": \"AWS SOCI CLI v0.2\",\n  \"size\": "
        ),
        "{text}"
    );
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(info["size"].as_u64().unwrap().to_string(), row[1]);
    assert_eq!(info["span_size"], 65536);
    assert_eq!(info["num_files"], 11);
    assert!(info["num_spans"].as_u64().unwrap() > 1);
    assert_eq!(info["num_multi_span_files"], 1);
    let hello = &info["files"][1];
    assert_eq!(hello["filename"], "etc/hello.txt");
    assert_eq!(
        (hello["size"].as_u64(), hello["type"].as_str(), hello["start_span"].as_u64()),
        (Some(6), Some("reg"), Some(0))
    );
    // Names that are not UTF-8 as Go prints them.
    assert!(text.contains(r#""odd-\ufffd""#), "{text}");
}

#[test]
fn get_file_follows_links_and_reads_exact_bytes() {
    let soci = Soci::new();
    let (_, ztoc, _) = indexed(&soci);
    let get = |name: &str| soci.run(&["ztoc", "get-file", &ztoc, name]);
    for name in ["etc/hello.txt", "/etc/hello.txt", "./etc/hello.txt", "etc/ln", "abs", "etc/hard"] {
        assert_eq!(get(name).ok(), "hello\n", "{name}");
    }
    assert_eq!(get("dup").ok(), "new");
    assert_eq!(get("empty").ok(), "");
    let big = Content::Made { texture: Texture::Text, seed: 7, len: 500_000 }.to_vec();
    assert_eq!(get("big").bytes(), big);
    assert!(get("loop").err().contains("link"), "self-link");
    assert!(get("etc").err().contains("is a dir"));
    assert!(get("missing").err().contains("no file"));

    let output = soci.dir().join("out");
    soci.ok(&["ztoc", "get-file", "-o", output.to_str().unwrap(), &ztoc, "big"]);
    assert_eq!(std::fs::read(&output).unwrap(), big);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(soci.err(&["ztoc", "get-file", "-o", "/dev/full", &ztoc, "big"]).contains("No space left"));
    assert!(soci.err(&["ztoc", "get-file", "-o", "no/such/dir", &ztoc, "big"]).contains("cannot write"));
}

#[test]
fn get_file_fetches_only_the_spans_it_needs() {
    let soci = Soci::new();
    let (_, ztoc, layer) = indexed(&soci);
    let registry = TestRegistry::builder().start_blocking();
    registry.put_layout("app", "v1", soci.dir().join("layout"));
    let image = format!("{}/app:v1", registry.host());
    let size = std::fs::metadata(soci.dir().join("layout/blobs/sha256").join(&layer[7..])).unwrap().len();
    assert_eq!(soci.ok(&["ztoc", "get-file", "--image", &image, &ztoc, "etc/hello.txt"]), "hello\n");
    assert!(registry.bytes_sent() < size / 2, "{} of {size}", registry.bytes_sent());

    // The layer changed behind our back: no wrong bytes.
    let path = soci.dir().join("layout/blobs/sha256").join(&layer[7..]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let run = soci.run(&["ztoc", "get-file", &ztoc, "etc/hello.txt"]);
    assert!(run.err().contains("span digests do not match"), "{}", run.stderr());
    assert_eq!(run.stdout(), "");
}
