//! From every place to every place the same image comes out, and no byte moves that need not.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testdata::docker_registry::DockerRegistry;
use testdata::image::{ImageIndex, IndexBuilder};
use testdata::registry::TestRegistry;

use crate::common::Soci;
use crate::{CONVERT, convert, image};

fn two_platforms() -> ImageIndex {
    IndexBuilder::new().image(&image(1, "linux/amd64")).image(&image(2, "linux/arm64/v8")).build()
}

/// What the registry answers for a name.
fn root(reference: &str) -> (String, Value) {
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{reference}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (registry::Digest::of(&output.stdout).to_string(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_result_is_the_same_wherever_it_comes_from_and_goes() {
    let (Some(one), Some(two)) = (DockerRegistry::start(), DockerRegistry::start()) else { return };
    let soci = Soci::new();
    two_platforms().write_layout(soci.dir().join("layout"), "v1");
    two_platforms().write_archive(soci.dir().join("app.tar"), "v1");
    let app = one.copy(&format!("oci:{}:v1", soci.dir().join("layout").display()), "app:v1");

    let expected = convert(&soci, &[&CONVERT[..], &["oci:layout:v1", "oci:made:soci"]].concat());
    let (same, other) = (format!("{}/app:soci", one.host()), format!("{}/other/app:soci", one.host()));
    let away = format!("docker://{}/app:soci", two.host());
    for (from, to) in [
        (app.as_str(), same.as_str()),
        (&app, &other),
        (&app, &away),
        ("oci-archive:app.tar", &away),
        ("oci-archive:app.tar:v1", "oci:made:again"),
        ("oci:layout:v1", "soci"),
        ("oci:layout:v1", "oci-archive:made.tar:soci"),
        (&app, "oci-archive:unnamed.tar"),
        ("oci-archive:made.tar", "oci:made"),
        ("oci:made:soci", &away),
    ] {
        assert_eq!(convert(&soci, &[&CONVERT[..], &[from, to]].concat()), expected, "{from} to {to}");
    }
    for reference in [&same, &other, &format!("{}/app:soci", two.host())] {
        assert_eq!(root(reference).0, expected);
    }
    // What was there keeps its name.
    let index: Value =
        serde_json::from_slice(&std::fs::read(soci.dir().join("layout/index.json")).unwrap()).unwrap();
    let names: Vec<&Value> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["annotations"]["org.opencontainers.image.ref.name"])
        .collect();
    assert_eq!(names, ["v1", "soci"]);

    // Others can read what was written, all of it.
    let read = |from: String, to: &str| {
        let output = Command::new("skopeo")
            .args(["copy", "--quiet", "--all", &from])
            .arg(format!("oci:{}", soci.dir().join(to).display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    read(format!("oci-archive:{}:soci", soci.dir().join("made.tar").display()), "read-archive");
    read(format!("oci:{}:soci", soci.dir().join("made").display()), "read-layout");

    // The same archive from the same image.
    convert(&soci, &[&CONVERT[..], &["oci:layout:v1", "oci-archive:twin.tar:soci"]].concat());
    let bytes = |name: &str| std::fs::read(soci.dir().join(name)).unwrap();
    assert_eq!(bytes("made.tar"), bytes("twin.tar"));
}

#[test]
fn layers_do_not_move_within_a_registry() {
    let registry = TestRegistry::builder().start_blocking();
    let soci = Soci::new();
    two_platforms().put_into(&registry, "app", "v1");
    let (from, same) = (format!("{}/app:v1", registry.host()), format!("{}/app:soci", registry.host()));
    let blobs = |method: &str, what: &str| {
        let requests = registry.requests();
        requests.iter().filter(|request| request.method == method && request.path.contains(what)).count()
    };
    convert(&soci, &[&CONVERT[..], &[&from, &same]].concat());
    // Four zTOCs and the common configuration of two indexes.
    assert_eq!(blobs("PUT", "/blobs/uploads/"), 5);
    // Each layer was read once, to index it, and no configuration at all.
    assert_eq!(blobs("GET", "/blobs/"), 4);

    registry.clear_requests();
    let other = format!("{}/other:soci", registry.host());
    convert(&soci, &[&CONVERT[..], &[&from, &other]].concat());
    let mounts: Vec<String> = registry
        .requests()
        .iter()
        .filter(|request| request.method == "POST" && request.path.contains("/other/blobs/uploads/"))
        .filter_map(|request| request.query.clone())
        .collect();
    assert_eq!(mounts.iter().filter(|query| query.contains("from=app")).count(), 6, "{mounts:?}");
    // The zTOCs are used again, so no layer is read at all.
    assert_eq!(blobs("GET", "/blobs/"), 0);
    assert_eq!(blobs("PUT", "/blobs/uploads/"), 5);
}

/// Not every registry can mount, and not every user may read the other repository: the push decides then.
#[test]
fn what_cannot_be_mounted_is_pushed() {
    use testdata::registry::{Action, Fault};
    let registry = TestRegistry::builder().start_blocking();
    let soci = Soci::new();
    image(1, "linux/amd64").put_into(&registry, "app", "v1");
    let (from, other) = (format!("{}/app:v1", registry.host()), format!("{}/other:v1", registry.host()));
    for (status, mounts) in [(404, 3), (403, 3), (401, 3)] {
        registry.clear_requests();
        registry.remove_manifest("other", "v1");
        // The first request for each of the image's three blobs; this registry's blobs are in all repositories.
        let refuse = Action::Status(status, Vec::new(), Default::default());
        registry.inject(Fault::times(mounts, refuse).method("POST"));
        let digest = convert(&soci, &[&CONVERT[..], &["--max-concurrent-copies=1", &from, &other]].concat());
        let (_, made) = registry.manifest("other", "v1").unwrap();
        assert_eq!(registry::Digest::of(&made).to_string(), digest);
        registry.clear_faults();
    }
}

/// A token that mounts a blob has to be good for both repositories.
#[test]
fn blobs_are_mounted_with_tokens_and_credentials_go_where_they_belong() {
    use testdata::registry::Auth;
    let one = TestRegistry::builder().auth(Auth::bearer("one", "secret-1")).start_blocking();
    let two = TestRegistry::builder().auth(Auth::basic("two", "secret-2")).start_blocking();
    let soci = Soci::new();
    image(1, "linux/amd64").put_into(&one, "app", "v1");
    let from = format!("{}/app:v1", one.host());
    let (near, far) = (format!("{}/other:v1", one.host()), format!("{}/app:v1", two.host()));
    let expected = convert(&soci, &[&CONVERT[..], &["--user=one:secret-1", &from, &near]].concat());
    let mounted = |request: &testdata::registry::Request| {
        request.query.as_deref().is_some_and(|query| query.contains("from=app")) && request.status == 201
    };
    assert_eq!(one.requests().iter().filter(|request| mounted(request)).count(), 3);
    let users = ["--source-user=one:secret-1", "--user=two:secret-2"];
    assert_eq!(convert(&soci, &[&CONVERT[..], &users, &[&from, &far]].concat()), expected);
    // What is meant for the destination is not shown to the source.
    let error = soci.err(&[&CONVERT[..], &["--user=two:secret-2", &from, &far]].concat());
    assert!(!error.contains("secret"), "{error}");
    let shown = one
        .requests()
        .iter()
        .filter_map(|request| request.header("authorization").map(str::to_owned))
        .collect::<Vec<_>>();
    let secret = "dHdvOnNlY3JldC0y";
    assert!(!shown.iter().any(|header| header.contains(secret)));
}

#[test]
fn destinations_are_checked_before_anything_is_read() {
    let registry = TestRegistry::builder().start_blocking();
    let soci = Soci::new();
    let app = image(1, "linux/amd64");
    app.write_layout(soci.dir().join("layout"), "v1");
    std::fs::create_dir(soci.dir().join("full")).unwrap();
    std::fs::write(soci.dir().join("full/precious"), "x").unwrap();
    let digest = format!("{}/app@{}", registry.host(), app.digest());
    for (to, words) in [
        (format!("docker://{}/app", registry.host()), "must be a tagged ref"),
        (format!("docker://{digest}"), "must be a tagged ref"),
        ("oci:full".to_owned(), "left as it is"),
        ("oci-archive:full".to_owned(), "not a file"),
        ("oci:made:@0".to_owned(), "a position cannot be written to"),
        ("docker-archive:x.tar".to_owned(), "is not supported; write oci:DIR:TAG"),
    ] {
        let error = soci.err(&["convert", "oci:layout", &to]);
        assert!(error.contains(words), "{to}: {error}");
    }
    assert!(registry.requests().is_empty());
    assert!(Path::new(&soci.dir().join("full/precious")).exists());
}

#[test]
fn the_result_is_printed_for_people_and_for_programs() {
    let soci = Soci::new();
    image(1, "linux/amd64").write_layout(soci.dir().join("layout"), "v1");
    let lines = soci.ok(&[&CONVERT[..], &["oci:layout:v1", "oci:made:v1"]].concat());
    assert!(
        lines.contains("soci index sha256:") && lines.contains("for linux/amd64: 2 of 2 layers"),
        "{lines}"
    );
    let last = lines.lines().last().unwrap();
    assert!(last.starts_with("converted image oci:/") && last.contains("blobs: 6 moved"), "{last}");
    let json = soci.ok(&[&CONVERT[..], &["--json", "oci:layout:v1", "oci:made:v1"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(last.contains(json["digest"].as_str().unwrap()));
    assert_eq!(json["platforms"][0]["platform"], "linux/amd64");
    // The store knows the index by the converted image.
    let listed = soci.indexes();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["digest"], json["platforms"][0]["index"]);
    assert_eq!(listed[0]["image_manifest"], json["platforms"][0]["image"]);
}
