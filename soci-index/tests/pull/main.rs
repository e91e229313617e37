//! `soci pull` into a real containerd, with its own snapshotters.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

#[path = "../common/mod.rs"]
mod common;
mod remote;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::Soci;
use serde_json::Value;
use testdata::containerd::Containerd;
use testdata::docker_registry::DockerRegistry;
use testdata::image::host::HostFiles;
use testdata::image::{
    Compression, Entry, Image, ImageBuilder, IndexBuilder, Layer, LayerBuilder, MediaTypes, Texture,
};
use testdata::registry::{Action, Fault, TestRegistry};

/// A shell, and some layers above it.
fn layers() -> Vec<Layer> {
    let mut files = HostFiles::new();
    files.binary("/bin/sh").binary("/bin/cat");
    let layer = |compression, entries: Vec<Entry>| {
        let mut layer = LayerBuilder::new(compression);
        for entry in entries {
            layer.add(entry);
        }
        layer.finish()
    };
    vec![
        files.layer(Compression::GZIP),
        layer(
            Compression::None,
            vec![Entry::dir("etc"), Entry::file("etc/motd", "first\n"), Entry::file("etc/gone", "x")],
        ),
        layer(Compression::GZIP, vec![Entry::file("etc/motd", "second\n"), Entry::whiteout("etc/gone")]),
        layer(Compression::GZIP, vec![Entry::made("big", Texture::Random, 7, 2_000_000)]),
    ]
}

fn image(media_types: MediaTypes) -> Image {
    layers().into_iter().fold(ImageBuilder::new().media_types(media_types), ImageBuilder::layer).build()
}

fn publish(registry: &DockerRegistry, write: impl FnOnce(&std::path::Path), name: &str) -> String {
    let layout = tempfile::tempdir().unwrap();
    write(layout.path());
    registry.copy(&format!("oci:{}:v1", layout.path().display()), name)
}

fn pull(soci: &Soci, snapshotter: &str, reference: &str) -> Value {
    let json = soci.ok(&["pull", "--json", "--snapshotter", snapshotter, reference]);
    serde_json::from_str(&json).unwrap()
}

fn outcomes(pulled: &Value) -> Vec<&str> {
    pulled["layers"].as_array().unwrap().iter().map(|layer| layer["outcome"].as_str().unwrap()).collect()
}

/// What a container of the image sees.
fn seen(containerd: &Containerd, snapshotter: &str, reference: &str) -> String {
    let script = "cat /etc/motd; test -e /etc/gone || echo gone";
    let output = containerd.run(snapshotter, reference, &["/bin/sh", "-c", script]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn count(containerd: &Containerd, args: &[&str]) -> usize {
    containerd.ok(args).lines().filter(|line| !line.is_empty()).count()
}

#[test]
fn images_of_every_form_run_and_stay() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(containerd) = Containerd::start() else { return };
    let soci = Soci::with_containerd(&containerd.address());
    let (oci, docker) = (image(MediaTypes::default()), image(MediaTypes::Docker));
    let other = ImageBuilder::new().platform("linux/s390x").layer(layers().remove(1)).build();
    let index = IndexBuilder::new().image(&other).image(&oci).build();
    let list = IndexBuilder::new().media_types(MediaTypes::Docker).image(&docker).build();
    // skopeo does not take Docker's types out of a layout.
    let second = TestRegistry::builder().start_blocking();
    docker.put_into(&second, "docker", "v1");
    list.put_into(&second, "list", "v1");
    for (name, snapshotter, reference) in [
        ("oci", "overlayfs", publish(&registry, |dir| oci.write_layout(dir, "v1"), "oci:v1")),
        ("docker", "native", format!("{}/docker:v1", second.host())),
        ("index", "native", publish(&registry, |dir| index.write_layout(dir, "v1"), "index:v1")),
        ("list", "overlayfs", format!("{}/list:v1", second.host())),
    ] {
        let pulled = pull(&soci, snapshotter, &reference);
        assert_eq!(pulled["image"], reference.as_str());
        assert_eq!(outcomes(&pulled).len(), 4, "{name}");
        containerd.collect_garbage();
        // As complete as what ctr pulls. Looked at first: `ctr run` would unpack what is not.
        let check =
            containerd.ok(&["image", "check", "--snapshotter", snapshotter, &format!("name=={reference}")]);
        let line = check.lines().find(|line| line.starts_with(&reference)).unwrap_or_default();
        assert!(line.contains("complete") && line.trim().ends_with("true"), "{check}");
        assert_eq!(seen(&containerd, snapshotter, &reference), "second\ngone\n", "{name}");
    }
    assert_eq!(count(&containerd, &["leases", "ls", "-q"]), 0);
    assert_eq!(count(&containerd, &["content", "active"]), 1, "the head of the table");

    // When the images go, everything goes.
    for line in containerd.ok(&["image", "ls", "-q"]).lines() {
        containerd.ok(&["image", "rm", "--sync", line]);
    }
    assert_eq!(containerd.ok(&["content", "ls", "-q"]), "");
    for snapshotter in ["overlayfs", "native"] {
        assert_eq!(
            count(&containerd, &["snapshot", "--snapshotter", snapshotter, "ls"]),
            1,
            "the head of the table"
        );
    }
}

#[test]
fn a_second_pull_does_nothing_twice() {
    let Some(containerd) = Containerd::start() else { return };
    let registry = TestRegistry::builder().start_blocking();
    let image = image(MediaTypes::default());
    image.put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let soci = Soci::with_containerd(&containerd.address());
    assert_eq!(outcomes(&pull(&soci, "overlayfs", &reference)), ["downloaded"; 4]);
    let layers = |registry: &TestRegistry| {
        let blob = |path: &str| image.layers().iter().any(|layer| path.ends_with(&layer.digest));
        registry.requests().iter().filter(|request| blob(&request.path)).count()
    };
    assert_eq!(layers(&registry), 4);
    registry.clear_requests();

    let stdout = soci.ok(&["pull", "--snapshotter=overlayfs", &reference]);
    assert_eq!(stdout.matches(": there already\n").count(), 4, "{stdout}");
    assert!(stdout.contains("4 layers: 4 there already\n"), "{stdout}");
    assert_eq!(layers(&registry), 0);
    // Another snapshotter: the content is there.
    assert_eq!(outcomes(&pull(&soci, "native", &reference)), ["downloaded"; 4]);
    assert_eq!(layers(&registry), 0);
    assert_eq!(seen(&containerd, "native", &reference), "second\ngone\n");
    assert_eq!(seen(&containerd, "overlayfs", &reference), "second\ngone\n");
    assert_eq!(soci.ok(&["pull", "-q", "--snapshotter=native", &reference]), format!("{reference}\n"));

    // An image that shares the lower layers takes them over; a tag that moves is followed, and what others have noted
    // about the name stays.
    containerd.ok(&["image", "label", &reference, "example.com/kept=yes"]);
    let next = ImageBuilder::new().layer(image.layers()[0].clone()).layer(image.layers()[3].clone()).build();
    next.put_into(&registry, "app", "v1");
    assert_eq!(outcomes(&pull(&soci, "overlayfs", &reference)), ["present", "downloaded"]);
    let listing = containerd.ok(&["image", "ls"]);
    assert!(listing.contains(next.digest()) && !listing.contains(image.digest()), "{listing}");
    assert!(listing.contains("example.com/kept=yes"), "{listing}");
}

#[test]
fn several_pulls_at_once_share_the_work() {
    let Some(containerd) = Containerd::start() else { return };
    let registry = TestRegistry::builder().latency(Duration::from_millis(20)).start_blocking();
    let image = image(MediaTypes::default());
    image.put_into(&registry, "app", "v1");
    image.put_into(&registry, "other", "v1");
    let soci = Soci::with_containerd(&containerd.address());
    std::thread::scope(|scope| {
        for (name, snapshotter) in
            [("app", "overlayfs"), ("app", "overlayfs"), ("other", "overlayfs"), ("app", "native")]
        {
            let (soci, reference) = (&soci, format!("{}/{name}:v1", registry.host()));
            scope.spawn(move || pull(soci, snapshotter, &reference));
        }
    });
    for layer in image.layers() {
        let fetched =
            registry.requests().iter().filter(|request| request.path.ends_with(&layer.digest)).count();
        assert_eq!(fetched, 1, "{}", layer.digest);
    }
    containerd.collect_garbage();
    assert_eq!(count(&containerd, &["leases", "ls", "-q"]), 0);
    for (name, snapshotter) in [("app", "overlayfs"), ("other", "overlayfs"), ("app", "native")] {
        let reference = format!("{}/{name}:v1", registry.host());
        assert_eq!(seen(&containerd, snapshotter, &reference), "second\ngone\n", "{name} {snapshotter}");
    }
}

#[test]
fn a_registry_that_dies_in_the_middle_leaves_nothing_visible() {
    let Some(containerd) = Containerd::start() else { return };
    let registry = TestRegistry::builder().start_blocking();
    let image = image(MediaTypes::default());
    image.put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let soci = Soci::with_containerd(&containerd.address());
    let last = &image.layers()[3].digest;
    let die = || {
        registry.inject(Fault::once(Action::ShortBody(1_500_000)).path(last));
        registry.inject(Fault::status(503).path(last).after(1));
    };
    die();
    let error = soci.err(&["pull", "--snapshotter=overlayfs", &reference]);
    assert!(error.contains(last.as_str()) && error.contains(&registry.host()), "{error}");
    assert_eq!(containerd.ok(&["image", "ls", "-q"]), "");
    assert_eq!(count(&containerd, &["leases", "ls", "-q"]), 0);
    registry.clear_faults();
    assert_eq!(outcomes(&pull(&soci, "overlayfs", &reference)).len(), 4);
    assert_eq!(seen(&containerd, "overlayfs", &reference), "second\ngone\n");

    // What a failed pull left is collected.
    containerd.ok(&["image", "rm", "--sync", &reference]);
    die();
    soci.err(&["pull", "--snapshotter=overlayfs", &reference]);
    containerd.collect_garbage();
    assert_eq!(containerd.ok(&["content", "ls", "-q"]), "");
    assert_eq!(count(&containerd, &["content", "active"]), 1, "the head of the table");
    assert_eq!(count(&containerd, &["snapshot", "ls"]), 1, "the head of the table");
}

#[test]
fn an_interrupted_pull_ends_its_lease() {
    let Some(containerd) = Containerd::start() else { return };
    let registry = TestRegistry::builder().start_blocking();
    let image = image(MediaTypes::default());
    image.put_into(&registry, "app", "v1");
    let last = &image.layers()[3].digest;
    let reference = format!("{}/app:v1", registry.host());
    for signal in ["INT", "TERM"] {
        registry.clear_requests();
        registry.inject(Fault::once(Action::Stall(Duration::from_secs(60))).path(last));
        let soci = std::process::Command::new(env!("CARGO_BIN_EXE_soci"))
            .args(["--address", &containerd.address(), "pull", "--snapshotter=overlayfs", &reference])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while !registry.requests().iter().any(|request| request.path.ends_with(last.as_str())) {
            assert!(Instant::now() < end, "the layer is not asked for");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(count(&containerd, &["leases", "ls", "-q"]), 1);
        let kill = std::process::Command::new("kill").args(["-s", signal, &soci.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let output = soci.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
        assert_eq!(count(&containerd, &["leases", "ls", "-q"]), 0);
        assert_eq!(containerd.ok(&["image", "ls", "-q"]), "");
        registry.clear_faults();
    }
}

#[test]
fn images_that_lie_about_their_layers_are_refused() {
    let Some(containerd) = Containerd::start() else { return };
    let registry = TestRegistry::builder().start_blocking();
    let image = image(MediaTypes::default());
    image.put_into(&registry, "app", "v1");
    let soci = Soci::with_containerd(&containerd.address());

    // A configuration with another image's diff_ids.
    let manifest: Value = serde_json::from_slice(&image.manifest()).unwrap();
    let mut config: Value = serde_json::from_slice(&image.config()).unwrap();
    let ids = config["rootfs"]["diff_ids"].as_array_mut().unwrap();
    ids.swap(1, 2);
    let put = |tag: &str, config: &Value| {
        let bytes = serde_json::to_vec(config).unwrap();
        let mut manifest = manifest.clone();
        manifest["config"]["size"] = bytes.len().into();
        manifest["config"]["digest"] = registry.put_blob(bytes).into();
        registry.put_manifest("app", tag, image.media_type(), serde_json::to_vec(&manifest).unwrap());
        format!("{}/app:{tag}", registry.host())
    };
    let reference = put("swapped", &config);
    let error = soci.err(&["pull", "--snapshotter=overlayfs", &reference]);
    assert!(error.contains("damaged or forged") && error.contains(&image.layers()[1].digest), "{error}");
    // One with fewer.
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop();
    let error = soci.err(&["pull", "--snapshotter=overlayfs", &put("fewer", &config)]);
    assert!(error.contains("the manifest has 4 layers, and the configuration 3"), "{error}");
    // A layer with other bytes. The right ones may have come with the pulls before.
    containerd.collect_garbage();
    registry.inject(Fault::always(Action::CorruptByte(1_000_000)).path(&image.layers()[3].digest));
    let error = soci.err(&["pull", "--snapshotter=overlayfs", &format!("{}/app:v1", registry.host())]);
    assert!(error.contains(&image.layers()[3].digest), "{error}");
    assert_eq!(containerd.ok(&["image", "ls", "-q"]), "");
    // The lowest layer is what it says, and nothing else was committed.
    assert!(count(&containerd, &["snapshot", "ls"]) <= 4);
}

#[test]
fn errors_say_what_to_do() {
    let Some(containerd) = testdata::containerd::Options::new().proxy("soci", "/nonexistent/socket").start()
    else {
        return;
    };
    let registry = TestRegistry::builder().start_blocking();
    image(MediaTypes::default()).put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let soci = Soci::with_containerd(&containerd.address());
    let error = soci.err(&["pull", "--snapshotter=nosuch", &reference]);
    assert!(error.contains("no snapshotter \"nosuch\"") && error.contains("native, overlayfs"), "{error}");
    let error = soci.err(&["pull", "--timeout=40s", &reference]);
    assert!(error.contains("is soci-snapshotter-grpc running?"), "{error}");
    let error = soci.err(&["pull", "--snapshotter=overlayfs", "--platform=linux/s390x", &reference]);
    assert!(error.contains("no image for platform linux/s390x"), "{error}");
    let error = Soci::with_containerd("/nonexistent/socket").err(&["pull", &reference]);
    assert!(error.contains("cannot connect to containerd") && error.contains("--address"), "{error}");
    assert_eq!(soci.run(&["pull"]).code(), Some(2));
    drop(containerd);
    let Some(containerd) = Containerd::start() else { return };
    let error = Soci::with_containerd(&containerd.address()).err(&["pull", &reference]);
    assert!(error.contains("proxy_plugins.soci") && error.contains("--snapshotter overlayfs"), "{error}");
}
