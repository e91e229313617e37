//! Images that `soci convert` made: their index is a part of them, and comes along wherever they are copied.

use std::process::Command;

use testdata::docker_registry::DockerRegistry;
use testdata::walk::{View, compare};
use testdata::workloads::Workloads;

use crate::container::Container;
use crate::daemon::program;
use crate::node::{Node, Pull, SOCI, said};

pub(crate) fn convert(from: &str, to: &str) {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new(program("soci"))
        .args(["--content-store=soci", "--root"])
        .arg(root.path())
        .args(["convert", "--all-platforms", "--min-layer-size=0", from, to])
        .env("HOME", root.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Copies an image as its users do, who know nothing of SOCI.
fn copy(from: &str, to: &str) {
    let output = Command::new("skopeo")
        .args(["copy", "--quiet", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args([format!("docker://{from}"), format!("docker://{to}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

fn is_lazy_by_version_2(node: &Node, reference: &str) {
    let modes = node.daemon.modes(reference);
    assert!(!modes.is_empty() && modes.iter().all(|(mode, _)| mode == "lazy"), "{modes:?}");
}

/// Through two registries and containerd, by both ways to pull; the tree is that of the image before it was converted.
#[test]
fn a_converted_image_is_lazy_and_the_same() {
    let Some(workloads) = Workloads::get() else { return };
    let (Some(one), Some(two)) = (DockerRegistry::start(), DockerRegistry::start()) else { return };
    // With version 1 switched off, nothing but the index in the image can be found.
    let Some(node) = Node::with("[pull_modes.soci_v1]\nenable = false\n") else { return };
    let workload = workloads.named("redis");
    let original = workload.push(&one);
    let converted = format!("{}/elsewhere/redis:soci", one.host());
    convert(&original, &converted);
    let copied = format!("{}/redis:copied", two.host());
    copy(&converted, &copied);

    node.ok("overlay", &["image", "pull", "--plain-http", "--snapshotter", "overlayfs", &original]);
    let overlay = node.mount("overlay", "overlayfs", workload.image(), false);
    let mut expected = View::of(overlay.path());
    // containerd's overlayfs leaves out what a layer says of the root directory.
    expected.tree.0.insert(Vec::new(), workload.expected().get("").unwrap().clone());
    for (how, reference) in [(Pull::Soci, &converted), (Pull::Cri, &copied)] {
        node.pull(how, reference);
        is_lazy_by_version_2(&node, reference);
        let lazy = node.mount(how.namespace(), SOCI, workload.image(), false);
        compare(&View::of(lazy.path()).tree, &expected.tree)
            .unwrap_or_else(|error| panic!("{reference}:\n{error}"));
        drop(lazy);
        let mut container = Container::run(&node, how.namespace(), reference);
        container.wait_for(workload.ready(), std::time::Duration::from_secs(60));
        drop(container);
        node.remove(how, reference).unwrap();
    }
}
