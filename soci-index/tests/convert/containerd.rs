//! Conversions within a real containerd, as nerdctl asks for them, and out of it and into it.

use testdata::containerd::Containerd as Server;
use testdata::docker_registry::DockerRegistry;
use testdata::image::{ImageIndex, IndexBuilder};

use crate::common::Soci;
use crate::{CONVERT, convert, image};

fn two_platforms() -> ImageIndex {
    IndexBuilder::new().image(&image(1, "linux/amd64")).image(&image(2, "linux/arm64")).build()
}

fn publish(registry: &DockerRegistry, image: &ImageIndex, name: &str) -> String {
    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path(), "v1");
    registry.copy(&format!("oci:{}:v1", layout.path().display()), name)
}

/// `nerdctl image convert --soci SRC DEST` and `nerdctl push DEST` do just this.
#[test]
fn a_name_in_containerd_is_converted_to_another() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let reference = publish(&registry, &two_platforms(), "app:v1");
    server.ok(&["content", "fetch", "--plain-http", "--all-platforms", &reference]);
    let soci = Soci::with_containerd(&server.address());
    let made = format!("{}/app:soci", registry.host());
    let digest = convert(&soci, &[&CONVERT[..], &[&reference, &made]].concat());
    let images = server.ok(&["images", "ls"]);
    let line = images.lines().find(|line| line.starts_with(&made)).unwrap();
    assert!(line.contains(&digest) && line.contains("application/vnd.oci.image.index.v1+json"), "{line}");

    // Everything is kept by the image, and by nothing else: no lease, no root of its own.
    server.collect_garbage();
    assert_eq!(server.ok(&["leases", "ls", "-q"]).lines().count(), 0);
    server.ok(&["images", "push", "--plain-http", &made]);
    // What a registry has of it is what the registry gets when it is asked directly.
    let direct = Soci::new();
    let other = format!("{}/app:direct", registry.host());
    assert_eq!(convert(&direct, &[&CONVERT[..], &[&reference, &other]].concat()), digest);

    // Converting again moves nothing, and the name may be the same.
    let run = soci.run(&[&CONVERT[..], &[&made, &made]].concat());
    assert!(run.ok().contains(&digest));
    server.ok(&["images", "rm", "--sync", &made]);
    server.ok(&["images", "rm", "--sync", &reference]);
    server.collect_garbage();
    assert_eq!(server.ok(&["content", "ls", "-q"]), "");
}

#[test]
fn one_platform_of_what_was_pulled() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let reference = publish(&registry, &two_platforms(), "app:v1");
    server.ok(&["content", "fetch", "--plain-http", "--platform=linux/amd64", &reference]);
    let soci = Soci::with_containerd(&server.address());
    let made = format!("{}/app:soci", registry.host());
    let args = ["convert", "--platform=linux/amd64", "--min-layer-size=0", &reference];
    // Within containerd the other platform stays listed, as nerdctl and the reference leave it.
    convert(&soci, &[&args[..], &[&made]].concat());
    let content = server.ok(&["content", "ls", "-q"]);
    assert!(content.contains("sha256:"));
    server.ok(&["images", "push", "--plain-http", "--platform=linux/amd64", &made]);
    // Elsewhere an image has to be complete.
    let away = format!("docker://{}/away:soci", registry.host());
    let run = soci.run(&[&args[..], &[&away]].concat());
    run.ok();
    assert!(run.stderr().contains("the converted image is without it"), "{}", run.stderr());
    let complete = Soci::new();
    let from = format!("{}/away:soci", registry.host());
    let twin = format!("{}/away:twin", registry.host());
    convert(&complete, &["convert", "--min-layer-size=0", &from, &twin]);
}

#[test]
fn into_containerd_come_only_the_platforms_that_were_asked_for() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let reference = publish(&registry, &two_platforms(), "app:v1");
    let soci = Soci::with_containerd(&server.address());
    let from = format!("docker://{reference}");
    let args = ["convert", "--platform=linux/amd64", "--min-layer-size=0", &from, "containerd:my image"];
    convert(&soci, &args);
    server.collect_garbage();
    let images = server.ok(&["images", "ls", "-q"]);
    assert_eq!(images.trim(), "my image");
    let content = server.ok(&["content", "ls", "-q"]);
    for layer in image(1, "linux/amd64").layers() {
        assert!(content.contains(&layer.digest), "{content}");
    }
    for layer in image(2, "linux/arm64").layers() {
        assert!(!content.contains(&layer.digest), "{content}");
    }
    // What is there can be taken out again, without the platform that is not.
    let run = soci.run(&[
        "convert",
        "--platform=linux/amd64",
        "--min-layer-size=0",
        "containerd:my image",
        "oci:out",
    ]);
    run.ok();
    assert!(run.stderr().contains("the converted image is without it"), "{}", run.stderr());
}
