//! Prefetch artifacts: `soci create --prefetch-file`, `soci prefetch`, push and removal.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::collections::BTreeSet;

use common::{Soci, after};
use registry::Digest;
use serde_json::Value;
use soci_index::prefetch::PrefetchArtifact;
use soci_index::recording::{RecordedLayer, RecordedRead, Recording};
use testdata::golden;
use testdata::image::{Compression, Entry, Image, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::registry::TestRegistry;

const CREATE: [&str; 4] = ["create", "--min-layer-size=0", "--span-size=65536", "--platform=linux/amd64"];

fn layer(entries: Vec<Entry>, compression: Compression) -> Layer {
    let mut layer = LayerBuilder::new(compression);
    for entry in entries {
        layer.add(entry);
    }
    layer.finish()
}

fn text(name: &str, seed: u64, len: u64) -> Entry {
    Entry::made(name, Texture::Text, seed, len)
}

/// Two layers with files of several spans; `both` is in each.
fn image() -> Image {
    let lower = vec![
        Entry::dir("bin"),
        text("bin/app", 1, 400_000),
        text("both", 2, 100_000),
        Entry::hard_link("bin/hard", "bin/app"),
        Entry::symlink("bin/soft", "app"),
        text("last", 3, 300_000),
    ];
    let upper = vec![
        Entry::dir("./"),
        Entry::dir("./etc"),
        text("./etc/conf", 4, 200_000),
        text("./both", 5, 100_000),
        text("./dup", 6, 150_000),
        text("./dup", 7, 150_000),
    ];
    ImageBuilder::new().layer(layer(lower, Compression::None)).layer(layer(upper, Compression::GZIP)).build()
}

/// A store and a layout with the image.
fn soci() -> (Soci, Image) {
    let (soci, image) = (Soci::new(), image());
    image.write_layout(soci.dir().join("layout"), "v1");
    (soci, image)
}

fn create(soci: &Soci, more: &[&str]) -> (Value, String) {
    let run = soci.run(&[&CREATE, more, &["--quiet", "oci:layout"]].concat());
    let index = soci.ok(&["index", "info", run.ok().trim()]);
    (serde_json::from_str(&index).unwrap(), run.stderr())
}

/// The artifacts of an index: layer and spans.
fn artifacts(soci: &Soci, index: &Value) -> Vec<(String, Vec<(u32, u32)>)> {
    let layers = index["layers"].as_array().unwrap().iter();
    layers
        .filter(|layer| layer["mediaType"] == "application/vnd.amazon.soci.prefetch.v1+json")
        .map(|layer| {
            let annotations = layer["annotations"].as_object().unwrap();
            assert_eq!(annotations.len(), 1);
            let digest: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
            let bytes = std::fs::read(soci.root().join("content/blobs/sha256").join(digest.hex())).unwrap();
            assert_eq!(bytes.len() as u64, layer["size"].as_u64().unwrap());
            let artifact = PrefetchArtifact::parse(&bytes).unwrap();
            let spans = artifact.ranges().iter().map(|range| (range.start, range.end)).collect();
            (annotations["com.amazon.soci.image-layer-digest"].as_str().unwrap().to_owned(), spans)
        })
        .collect()
}

/// Recorded from awslabs/soci-snapshotter 0.15: `convert --standalone --all-platforms --format oci-dir --min-layer-size 0
/// --span-size 65536 --prefetch-file …`.
#[test]
fn artifacts_are_the_references_byte_for_byte() {
    const FILES: &str =
        "big/00,big/03,big/07,/lib/f00004,lib/../lib/f00010,opt/owner,opt/ln,su,dev/sda,data/uid";
    let zero = "520900f4a24d9f67823edbe61838eec1b7bd8c64667f0a577a264715d4e9a37b";
    let common = [
        (
            "4a3167486026935c5634f43a36ed8d019f69b855afb9a1b552548b11a2943fa6",
            "97c3c9d01851431014165cc61f69f2e4e9c233991db9efad78f0f6476c2c9ee1",
        ),
        ("674713ca94734a5a6d6ea6a350c168dcd655e05fc79b6e6717a803c4f02120f2", zero),
        (
            "d3ca9f8f4d97c2185b398c6d16cf31cfdad2c9bdf81b877aed1942c4a39e474e",
            "83b49ffffe5e56c238711e34400e2c977a01a4807b89665ea1f4f7d16390c601",
        ),
        ("fee8a8d2d718287f352225449aa686af422b2c6275656142fad8f4792151c936", zero),
    ];
    let special = ("87ad7351706f1c3dd4795246ab20b5113a718424b33768a9e8d5b224c1bb975c", zero);
    let multi_member = (
        "a60bd9c6fcf693addb7ac6cd15a8b92aab2975e92563b771eebf505b46dfc6da",
        "04bb4fb3a937657fd8eb0b7a7778306bf2f72e788a9002fd54c61fc9521657ff",
    );
    for (name, expected) in [
        ("all-layers", [&common[..], &[special]].concat()),
        ("docker", vec![common[1], multi_member]),
        ("multi-platform", [&common[..], &[multi_member]].concat()),
    ] {
        let soci = Soci::new();
        let source = format!("oci:{}", golden::image_dir(name).display());
        let args = [
            "create",
            "--all-platforms",
            "--min-layer-size=0",
            "--span-size=65536",
            "--prefetch-file",
            FILES,
        ];
        let stdout = soci.ok(&[&args[..], &[&source]].concat());
        let made: BTreeSet<&str> =
            after(&stdout, "Created prefetch artifact for layer ").into_iter().collect();
        let expected: Vec<String> =
            expected.iter().map(|(layer, artifact)| format!("sha256:{layer}: sha256:{artifact}")).collect();
        assert_eq!(made, expected.iter().map(String::as_str).collect(), "{name}");
    }
}

#[test]
fn each_layer_gets_an_artifact_behind_the_ztocs_in_layer_order() {
    let (soci, image) = soci();
    let [lower, upper] = [0, 1].map(|at| image.layers()[at].digest.clone());
    std::fs::write(soci.dir().join("files.json"), r#"["/etc/conf", "both", " bin/app "]"#).unwrap();
    let (index, stderr) = create(&soci, &["--prefetch-files-json=files.json", "--prefetch-file=last"]);
    assert_eq!(stderr, "");
    let media_types: Vec<&str> = index["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap())
        .collect();
    let prefetch = "application/vnd.amazon.soci.prefetch.v1+json";
    assert_eq!(media_types, ["application/octet-stream", "application/octet-stream", prefetch, prefetch]);
    let found = artifacts(&soci, &index);
    // bin/app ends in span 6, and `last`, behind the lower `both`, which does not count, begins in span 7.
    assert_eq!(found[0], (lower, vec![(0, 12)]));
    assert_eq!(found[1].0, upper);
    // Without files there is none, and the zTOCs are the same.
    let (plain, _) = create(&soci, &[]);
    assert!(artifacts(&soci, &plain).is_empty());
    assert_eq!(plain["layers"].as_array().unwrap()[..], index["layers"].as_array().unwrap()[..2]);
}

#[test]
fn links_directories_and_doubles_are_what_a_container_sees() {
    let (soci, _) = soci();
    let spans = |files: &str| {
        let (index, stderr) = create(&soci, &["--prefetch-file", files]);
        (artifacts(&soci, &index).into_iter().map(|(_, spans)| spans).collect::<Vec<_>>(), stderr)
    };
    let (app, _) = spans("bin/app");
    assert_eq!(spans("/bin/hard"), (app, String::new()));
    let (soft, stderr) = spans("bin/soft");
    assert!(
        soft.len() == 1 && stderr.contains("bin/soft") && stderr.contains("leads to as well: app"),
        "{stderr}"
    );
    let (directory, stderr) = spans("bin");
    assert!(directory.is_empty() && stderr.contains("it is a directory"), "{stderr}");
    let (missing, stderr) = spans("no/such");
    assert!(missing.is_empty() && stderr.contains("no/such") && stderr.contains("in no layer"), "{stderr}");
    // The second `dup`, which covers the first.
    let (dup, _) = spans("dup");
    let (conf, _) = spans("etc/conf");
    assert!(dup[0][0].0 > conf[0][0].1 + 1, "{dup:?} {conf:?}");
}

#[test]
fn bad_lists_are_refused_before_anything_is_built() {
    let (soci, _) = soci();
    let with_list = |list: &str| {
        std::fs::write(soci.dir().join("files.json"), list).unwrap();
        soci.err(&[&CREATE[..], &["--prefetch-files-json=files.json", "oci:layout"]].concat())
    };
    for list in ["", "{}", "[1]", r#"{"files":[]}"#, "[\"a\""] {
        assert!(with_list(list).contains("has to be a JSON array of strings"), "{list}");
    }
    let many = format!("[{}\"x\"]", "\"x\",".repeat(soci_index::build::MAX_PREFETCH_FILES));
    assert!(with_list(&many).contains("files to prefetch, more than"));
    let stderr = soci.err(&[&CREATE[..], &["--prefetch-files-json=missing", "oci:layout"]].concat());
    assert!(stderr.contains("cannot read the files to prefetch from missing"), "{stderr}");
    assert!(soci.indexes().is_empty());
}

#[test]
fn list_and_info_print_what_the_reference_prints() {
    let (soci, image) = soci();
    let header = "DIGEST    LAYER DIGEST    SPANS    CREATED    \n";
    assert_eq!(soci.ok(&["prefetch", "list"]), header);
    assert_eq!(soci.ok(&["prefetch", "ls", "--json"]), "[]\n");
    create(&soci, &["--prefetch-file=bin/app"]);
    let listed: Value = serde_json::from_str(&soci.ok(&["prefetch", "ls", "--json"])).unwrap();
    let row = &listed[0];
    let keys: BTreeSet<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["Digest", "LayerDigest", "TotalSpans", "CreatedAt"]));
    let (digest, layer) = (row["Digest"].as_str().unwrap(), &image.layers()[0].digest);
    assert_eq!((row["LayerDigest"].as_str(), row["TotalSpans"].as_u64()), (Some(layer.as_str()), Some(7)));
    let table = soci.ok(&["prefetch", "ls"]);
    assert!(table.lines().nth(1).unwrap().starts_with(&format!("{digest}    {layer}    7    ")), "{table}");

    let info = soci.ok(&["prefetch", "info", digest]);
    let created = info.lines().find(|line| line.starts_with("Created:       ")).unwrap();
    let expected = format!(
        "Digest:        {digest}\nVersion:       1.0\nSpan Ranges:   1\nLayer Digest:  {layer}\nSize:          66 bytes\n\
         {created}\n\nPrefetch Spans:\n  [0] StartSpan: 0, EndSpan: 6 (covers 7 spans)\n\nTotal spans to prefetch: 7\n"
    );
    assert_eq!(info, expected);
    let json = soci.ok(&["prefetch", "info", "--json", digest]);
    let raw = json.strip_prefix(&format!("{expected}\nRaw JSON:\n")).unwrap();
    assert!(
        raw.starts_with(
            "{\n  \"version\": \"1.0\",\n  \"prefetch_spans\": [\n    {\n      \"start_span\": 0,"
        ),
        "{raw}"
    );

    let ztoc = soci.ok(&["ztoc", "ls", "-q"]);
    let ztoc = ztoc.lines().next().unwrap();
    assert!(soci.err(&["prefetch", "info", ztoc]).contains("is not a prefetch artifact (type: soci_layer)"));
    assert!(soci.err(&["ztoc", "info", digest]).contains("belongs to a prefetch artifact"));
    assert!(soci.err(&["index", "info", digest]).contains("is of a prefetch artifact"));

    // A blob that is lost or damaged is listed without its spans.
    let blob = soci.root().join("content/blobs/sha256").join(&digest["sha256:".len()..]);
    std::fs::remove_file(&blob).unwrap();
    assert!(soci.ok(&["prefetch", "ls"]).contains("    N/A"));
    assert!(soci.ok(&["prefetch", "ls", "--json"]).contains("\"TotalSpans\": -1"));
    assert!(soci.err(&["prefetch", "info", digest]).contains("is not in the store"));
}

#[test]
fn artifacts_are_pushed_and_removed_with_their_index() {
    let (soci, image) = (Soci::new(), image());
    let registry = TestRegistry::builder().start_blocking();
    image.put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let args = ["--prefetch-file=bin/app,etc/conf", "--push", "--quiet", &reference];
    let index = soci.ok(&[&CREATE[..], &args].concat());
    let listed: Value = serde_json::from_str(&soci.ok(&["prefetch", "ls", "--json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let uploads: Vec<String> = registry
        .requests()
        .iter()
        .filter(|request| request.method == "PUT")
        .map(|request| format!("{}?{:?}", request.path, request.query))
        .collect();
    for row in listed.as_array().unwrap() {
        let hex = &row["Digest"].as_str().unwrap()["sha256:".len()..];
        assert!(uploads.iter().any(|upload| upload.contains(hex)), "{uploads:?}");
    }
    soci.ok(&["index", "rm", index.trim()]);
    assert_eq!(soci.ok(&["prefetch", "ls", "--json"]), "[]\n");
    assert_eq!(std::fs::read_dir(soci.root().join("content/blobs/sha256")).unwrap().count(), 0);
}

/// A recording as the snapshotter writes it: what was read of `bin/app` and `etc/conf`, and something that is in no layer.
fn recording(image: &Image, index: &str) -> Recording {
    let [lower, upper] = [0, 1].map(|at| image.layers()[at].digest.parse().unwrap());
    let ztoc = Digest::of(b"another one");
    let layer = |layer| RecordedLayer { layer, ztoc: ztoc.clone() };
    let read = |layer, entry, range| RecordedRead { layer, entry, range, milliseconds: 5 };
    Recording {
        image: "registry.example.com/app:v1".into(),
        manifest: image.digest().parse().unwrap(),
        index: index.parse().unwrap(),
        taken: 1_700_000_000,
        cold: true,
        waited: 2,
        layers: vec![layer(upper), layer(Digest::of(b"elsewhere")), layer(lower)],
        reads: vec![
            read(2, 1, 200_000..200_001),
            read(0, 2, 0..100),
            read(1, 0, 0..5),
            read(2, 1, 0..70_000),
            read(2, 4_000_000, 0..5),
            read(2, 1, 390_000..4_000_000_000),
        ],
        // Nobody has to know.
        unattributed: Some(vec![read(0, 1, 0..1)]),
    }
}

fn write_recording(soci: &Soci, recording: &Recording) -> String {
    let directory = soci.root().join("recordings");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{}.json", recording.manifest.hex()));
    std::fs::write(&path, recording.encode().unwrap()).unwrap();
    path.display().to_string()
}

/// The artifacts with priorities, for [`recording`].
fn recorded_artifacts(soci: &Soci, index: &Value) -> Vec<Vec<(u32, u32, i64)>> {
    let named = index["layers"].as_array().unwrap().iter();
    let named = named.filter(|layer| layer["mediaType"] == "application/vnd.amazon.soci.prefetch.v1+json");
    named
        .map(|layer| {
            let digest: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
            let bytes = std::fs::read(soci.root().join("content/blobs/sha256").join(digest.hex())).unwrap();
            let artifact = PrefetchArtifact::parse(&bytes).unwrap();
            artifact.ranges().iter().map(|range| (range.start, range.end, range.priority)).collect()
        })
        .collect()
}

/// `bin/app` begins in span 0 of the lower layer; `etc/conf` in span 0 of the upper one.
const RECORDED: [&[(u32, u32, i64)]; 2] = [&[(3, 3, 1), (0, 1, 3), (5, 6, 4)], &[(0, 0, 2)]];

#[test]
fn a_recording_becomes_an_index_beside_the_old_one() {
    let (soci, image) = (Soci::new(), image());
    let registry = TestRegistry::builder().start_blocking();
    image.put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    // Built elsewhere, so that nothing of it is here.
    let elsewhere = Soci::new();
    let base = elsewhere.ok(&[&CREATE[..], &["--push", "--quiet", &reference]].concat());
    let record = ["prefetch", "record", "--platform=linux/amd64", &reference];
    assert!(soci.err(&record).contains("run the image there first"));
    let mut recording = recording(&image, base.trim());
    write_recording(&soci, &recording);
    registry.clear_requests();
    let run = soci.run(&record);
    assert!(run.ok().contains(": 6 spans of 2 layers are prefetched\n"), "{}", run.stdout());
    assert_eq!(run.stderr(), "");
    // No layer is read.
    for layer in image.layers() {
        assert!(registry.requests().iter().all(|request| !request.path.contains(&layer.digest)));
    }
    let indexes = soci.indexes();
    assert_eq!(indexes.len(), 1, "{indexes:?}");
    let newest: Value = serde_json::from_str(&soci.ok(&[&record[..], &["--json"]].concat())).unwrap();
    let index: Value =
        serde_json::from_str(&soci.ok(&["index", "info", newest["index"].as_str().unwrap()])).unwrap();
    assert_eq!(recorded_artifacts(&soci, &index), RECORDED);
    assert_eq!(index["annotations"]["soci.prefetch.recorded"], "1700000000");
    let of_base: Value = serde_json::from_str(&elsewhere.ok(&["index", "info", base.trim()])).unwrap();
    assert_eq!(index["layers"].as_array().unwrap()[..2], of_base["layers"].as_array().unwrap()[..]);
    assert_eq!(index["subject"], of_base["subject"]);

    // Only what is new is sent, and with all it needs to another registry, too.
    registry.clear_requests();
    let pushed = soci.ok(&["prefetch", "push", "--platform=linux/amd64", &reference]);
    assert_eq!(after(&pushed, "successfully pushed artifact with digest: ").len(), 3, "{pushed}");
    let other = TestRegistry::builder().start_blocking();
    image.put_into(&other, "copy", "v1");
    let copy = format!("{}/copy:v1", other.host());
    let pushed = soci.ok(&["prefetch", "push", "--platform=linux/amd64", &copy]);
    assert_eq!(after(&pushed, "successfully pushed artifact with digest: ").len(), 6, "{pushed}");

    // A later recording replaces the artifacts, and a warm one is worth a word.
    recording.cold = false;
    recording.reads.truncate(1);
    recording.index = newest["index"].as_str().unwrap().parse().unwrap();
    write_recording(&soci, &recording);
    let run = soci.run(&[&record[..], &["--quiet"]].concat());
    let index: Value = serde_json::from_str(&soci.ok(&["index", "info", run.ok().trim()])).unwrap();
    assert_eq!(recorded_artifacts(&soci, &index), [RECORDED[0][..1].to_vec()]);
    assert!(run.stderr().contains("not a cold one"), "{}", run.stderr());

    // One of an earlier version may have more than the container read.
    recording.unattributed = None;
    write_recording(&soci, &recording);
    let run = soci.run(&[&record[..], &["--quiet"]].concat());
    assert!(run.stderr().contains("did not tell readers apart"), "{}", run.stderr());

    // Of nothing comes nothing, and nothing of what nobody is known to have read.
    recording.reads.clear();
    write_recording(&soci, &recording);
    assert!(soci.err(&record).contains("names no span"));
    recording.unattributed = Some(vec![RecordedRead { layer: 0, entry: 2, range: 0..100, milliseconds: 5 }]);
    write_recording(&soci, &recording);
    assert!(soci.err(&record).contains("hostPID"));
    recording.manifest = Digest::of(b"other");
    std::fs::write(
        soci.root().join(format!("recordings/{}.json", &image.digest()["sha256:".len()..])),
        recording.encode().unwrap(),
    )
    .unwrap();
    assert!(soci.err(&record).contains("recording of another image"));
}

#[test]
fn create_and_convert_build_a_recording_in() {
    let (soci, image) = soci();
    let file = write_recording(&soci, &recording(&image, image.digest()));
    let (index, _) = create(&soci, &["--prefetch-recording", &file]);
    assert_eq!(recorded_artifacts(&soci, &index), RECORDED);
    // Files that are named as well come last.
    let (index, _) = create(&soci, &["--prefetch-recording", &file, "--prefetch-file=last,both"]);
    let both = recorded_artifacts(&soci, &index);
    assert_eq!(both[0], [RECORDED[0][0], RECORDED[0][1], (5, 12, 4)], "`last` goes on where `bin/app` ends");
    assert_eq!(both[1], [(0, 2, 2)]);
    let plain = soci.ok(&[
        "convert",
        "--min-layer-size=0",
        "--platform=linux/amd64",
        "--quiet",
        "oci:layout",
        "oci:plain:v1",
    ]);
    let convert =
        ["convert", "--min-layer-size=0", "--platform=linux/amd64", "--quiet", "--prefetch-recording"];
    let recorded = soci.ok(&[&convert[..], &[&file, "oci:layout", "oci:recorded:v1"]].concat());
    assert_ne!(plain, recorded);
    let missing = soci.err(&[&CREATE[..], &["--prefetch-recording=missing", "oci:layout"]].concat());
    assert!(missing.contains("cannot read the recording missing"), "{missing}");
    std::fs::write(soci.dir().join("junk"), "{}").unwrap();
    let junk = soci.err(&[&CREATE[..], &["--prefetch-recording=junk", "oci:layout"]].concat());
    assert!(junk.contains("is no recording of a start"), "{junk}");
}
