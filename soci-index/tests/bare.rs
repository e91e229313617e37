//! `soci ztoc build`, and zTOCs in files.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use common::Soci;
use serde_json::Value;
use testdata::golden;

#[test]
fn files_give_the_ztocs_of_the_reference() {
    let golden = golden::load();
    let soci = Soci::new();
    for (name, layer) in &golden.layers {
        let path = golden::layer_path(name);
        let path = path.to_str().unwrap();
        let stdout = soci.ok(&["ztoc", "build", "--span-size=65536", "-o", "out", path]);
        let ztoc = &layer.ztoc[&65536];
        assert_eq!(stdout.trim(), ztoc.digest, "{name}");
        assert_eq!(std::fs::metadata(soci.dir().join("out")).unwrap().len(), ztoc.size, "{name}");
    }
    for name in golden.refused.keys() {
        let stderr = soci.err(&["ztoc", "build", "-o", "none", golden::layer_path(name).to_str().unwrap()]);
        assert!(stderr.contains("cannot be indexed"), "{name}: {stderr}");
    }
    assert!(!soci.dir().join("none").exists());
    assert!(!soci.root().exists(), "no store is needed");
}

#[test]
fn a_stored_ztoc_is_found_by_its_digest_and_used_again() {
    let soci = Soci::new();
    let path = golden::layer_path("gnu.tar.gz");
    let mut command = soci.command();
    let run = command.args(["ztoc", "build", "--json", "-"]).write_stdin(std::fs::read(&path).unwrap());
    let json: Value = serde_json::from_slice(&run.output().unwrap().stdout).unwrap();
    let layer = &golden::load().layers["gnu.tar.gz"];
    assert_eq!(json["layer_digest"], layer.digest);
    let digest = json["digest"].as_str().unwrap();
    assert_eq!(digest, layer.ztoc[&4_194_304].digest);
    let info = soci.ok(&["ztoc", "info", digest]);
    assert!(info.contains("\"filename\": \"opt/owner\""));
    let path = path.to_str().unwrap();
    let file = soci.ok(&["ztoc", "get-file", "--layer", path, digest, "opt/owner"]);
    assert_eq!(file.len(), 1);

    // The same from files alone.
    soci.ok(&["ztoc", "build", "--output", "gnu.ztoc", path]);
    assert_eq!(soci.ok(&["ztoc", "info", "gnu.ztoc"]), info);
    assert_eq!(soci.ok(&["ztoc", "get-file", "--layer", path, "gnu.ztoc", "opt/owner"]), file);
    let wrong = golden::layer_path("pax.tar.gz");
    let stderr = soci.err(&["ztoc", "get-file", "--layer", wrong.to_str().unwrap(), "gnu.ztoc", "opt/owner"]);
    assert!(stderr.contains("its zTOC is for one of"), "{stderr}");
    assert!(soci.err(&["ztoc", "get-file", "gnu.ztoc", "opt/owner"]).contains("--layer"));
}

#[test]
fn what_is_no_layer_or_no_ztoc_is_said() {
    let soci = Soci::new();
    std::fs::write(soci.dir().join("zstd"), b"\x28\xb5\x2f\xfdxxxx").unwrap();
    std::fs::write(soci.dir().join("junk"), "junk").unwrap();
    assert!(soci.err(&["ztoc", "build", "junk"]).contains("junk: the layer cannot be indexed"));
    assert!(soci.err(&["ztoc", "build", "missing"]).contains("cannot read the layer missing"));
    assert!(soci.err(&["ztoc", "build", "zstd"]).contains("cannot be indexed"));
    assert!(soci.err(&["ztoc", "info", "junk"]).contains("malformed zTOC"));
    assert!(soci.err(&["ztoc", "info", "missing"]).contains("cannot read the zTOC missing"));
    // A malformed digest is no file.
    assert_eq!(soci.run(&["ztoc", "info", "sha256:xyz"]).code(), Some(2));
    assert!(soci.ok(&["ztoc", "ls", "-q"]).is_empty());
}
