//! `soci-snapshotter-grpc doctor`: at a real node that is well, and at the same node with each of the faults that users have.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::{Action, Auth, Builder, Fault, TestRegistry};

use crate::daemon::{index, program};
use crate::node::{Node, Pull};

/// What the doctor says: its status and its lines.
fn doctor(node: &Node, arguments: &[&str]) -> (i32, Vec<String>) {
    let output = Command::new(program("soci-snapshotter-grpc"))
        .arg("--address")
        .arg(node.daemon.socket())
        .arg("--root")
        .arg(node.daemon.root())
        .arg("--config")
        .arg(node.daemon.file("config.toml"))
        .args(["doctor", "--containerd-address", &node.containerd.address()])
        .args(arguments)
        .env_remove("DOCKER_CONFIG")
        .env("HOME", node.daemon.file("home"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    let lines = text(&output.stdout).lines().map(str::to_owned).collect();
    (output.status.code().unwrap(), lines)
}

#[track_caller]
fn names(node: &Node, arguments: &[&str], words: &[&str]) {
    let (status, lines) = doctor(node, arguments);
    let first = lines.first().unwrap();
    assert!(first.starts_with("problem: ") && words.iter().all(|word| first.contains(word)), "{lines:#?}");
    assert_eq!(status, 1);
}

#[track_caller]
fn is_well(node: &Node, arguments: &[&str]) {
    let (status, lines) = doctor(node, arguments);
    assert!(status == 0 && lines[0].starts_with("all is well"), "{status} {lines:#?}");
}

/// An image with an index, in a registry.
fn image(registry: &TestRegistry, name: &str, seed: u64) -> String {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::made("data", Texture::Random, seed, 200_000));
    ImageBuilder::new().layer(layer.finish()).build().put_into(registry, name, "1");
    format!("{}/{name}:1", registry.host())
}

#[test]
fn the_doctor_names_each_fault_of_a_node_in_its_first_line() {
    let Some(mut node) = Node::start() else { return };
    // Where the configuration of the containerd that runs is it finds by itself.
    is_well(&node, &[]);
    let own = fs::read_to_string(node.containerd.directory().join("config.toml")).unwrap();
    let socket = node.daemon.socket().display().to_string();
    let with = |text: String, words: &[&str]| {
        let path = node.daemon.file("containerd.toml");
        fs::write(&path, text).unwrap();
        names(&node, &["--containerd-config", &path.display().to_string()], words);
    };
    with(own.replace(&socket, "/run/elsewhere.sock"), &["wrong socket", &socket]);
    let annotations = "disable_snapshot_annotations = false";
    assert!(own.contains(annotations));
    with(own.replace(annotations, ""), &["snapshot annotations are off for CRI"]);
    let current = node.containerd.release().is_current();
    if current {
        let remote = "enable_remote_snapshot_annotations = \"true\"";
        with(own.replace(remote, ""), &["remote snapshot annotations are off"]);
        with(own.replace("unpack_config", "another"), &["unpack_config", "is missing"]);
    }
    with("version = 2\n[[[\n".to_owned(), &["containerd.toml, line 2"]);
    // A mirror that nobody can parse.
    let usual = fs::read_to_string(node.daemon.file("config.toml")).unwrap();
    let mirrors = node.daemon.file("certs.d/registry.example.com");
    fs::create_dir_all(&mirrors).unwrap();
    fs::write(mirrors.join("hosts.toml"), "[host.\"https://m\"\n").unwrap();
    let certs = node.daemon.file("certs.d").display().to_string();
    node.daemon.configure(&format!("{usual}\n[registry]\nconfig_path = {certs:?}\n"));
    names(&node, &[], &["a mirror cannot be used", "hosts.toml"]);
    node.daemon.configure(&usual);
    // No daemon.
    node.daemon.stop(Signal::TERM);
    names(&node, &[], &["the daemon is not running", &socket]);
}

/// Without a restart of the daemon between them, so that what one client has pulled is there for the next: each has its own
/// image.
#[test]
fn with_the_documented_configuration_every_client_pulls_lazily_and_all_is_well() {
    let Some(node) = Node::documented() else { return };
    let registry = TestRegistry::builder().start_blocking();
    node.containerd.allow_http(&registry.host());
    is_well(&node, &[]);
    for (seed, how) in [Pull::Soci, Pull::Cri, Pull::Ctr, Pull::Nerdctl].into_iter().enumerate() {
        if !how.works_on(&node) {
            continue;
        }
        let reference = image(&registry, &format!("app{seed}"), seed as u64);
        index(&reference, &["--min-layer-size", "0"]);
        is_well(&node, &[&reference]);
        node.pull(how, &reference);
        let modes = node.daemon.modes(&reference);
        assert!(modes.iter().all(|(mode, _)| mode == "lazy") && modes.len() == 1, "{how:?}: {modes:?}");
    }
}

#[test]
fn the_doctor_names_a_root_directory_that_overlayfs_refuses() {
    let Some(mut node) = Node::start() else { return };
    node.daemon.stop(Signal::TERM);
    // overlayfs itself is such a file system.
    for name in ["l", "u", "w", "m"] {
        fs::create_dir_all(node.daemon.file(name)).unwrap();
    }
    let part = |name: &str| node.daemon.file(name).display().to_string();
    let data = format!("lowerdir={},upperdir={},workdir={}", part("l"), part("u"), part("w"));
    let data = std::ffi::CString::new(data).unwrap();
    mount("overlay", part("m"), "overlay", MountFlags::empty(), Some(data.as_c_str())).unwrap();
    let root = format!("{}/root", part("m"));
    let refused = doctor(&node, &["--root", &root]);
    let left: Vec<_> = fs::read_dir(part("m")).unwrap().collect();
    unmount(Path::new(&part("m")), UnmountFlags::DETACH).unwrap();
    let first = &refused.1[0];
    assert!(
        first.starts_with("problem: the root directory")
            && first.contains("overlayfs")
            && first.contains(&root),
        "{first}"
    );
    assert!(left.is_empty(), "the trial left {left:?}");
}

#[test]
fn the_doctor_names_what_a_registry_lacks() {
    let Some(node) = Node::start() else { return };
    let start = |builder: Builder| builder.start_blocking();
    let registry = start(TestRegistry::builder());
    let reference = image(&registry, "app", 1);
    names(&node, &[&reference], &["has no SOCI index", &reference]);
    index(&reference, &["--min-layer-size", "0"]);
    is_well(&node, &[&reference]);
    registry.inject(Fault::always(Action::IgnoreRange).path("/blobs/"));
    names(&node, &[&reference], &["ignores range requests", &registry.host()]);
    let private = start(TestRegistry::builder().auth(Auth::basic("me", "secret")));
    let secret = format!("{}/app:1", private.host());
    names(&node, &[&secret], &["no login", &private.host()]);
    // A login that the registry does not take.
    let home = node.daemon.file(".docker");
    fs::create_dir_all(&home).unwrap();
    let logins = serde_json::json!({"auths": {private.host(): {"auth": "bWU6d3Jvbmc="}}});
    fs::write(home.join("config.json"), logins.to_string()).unwrap();
    names(&node, &[&secret], &["login", "refused", &private.host()]);
    let gone = start(TestRegistry::builder());
    let host = gone.host();
    drop(gone);
    names(&node, &[&format!("{host}/app:1")], &["cannot be reached", &host]);
}

#[test]
fn json_has_the_worst_finding_and_wrong_usage_has_a_status_of_its_own() {
    let Some(node) = Node::start() else { return };
    let (status, lines) = doctor(&node, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&lines.join("\n")).unwrap();
    assert_eq!((status, &json["verdict"], &json["worst"]), (0, &"ok".into(), &serde_json::Value::Null));
    assert!(json["findings"].as_array().unwrap().iter().any(|finding| finding["id"] == "daemon"));
    assert_eq!(doctor(&node, &["not a reference"]).0, 2);
    assert_eq!(doctor(&node, &["--containerd-version", "two"]).0, 2);
}
