//! Real programs, pulled lazily and run.

use std::time::Duration;

use testdata::docker_registry::DockerRegistry;
use testdata::workloads::Workloads;

use crate::container::Container;
use crate::daemon::index;
use crate::node::{Node, Pull};

/// Everything lazily, or as users have it: small layers have no zTOC.
const ALL: &[&str] = &["--min-layer-size", "0"];
const LARGE: &[&str] = &[];

fn every_workload_reaches_its_ready_line(how: Pull, arguments: &[&str]) {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = Node::start() else { return };
    if !how.works_on(&node) {
        return;
    }
    let (mut lazy, mut eager) = (0, 0);
    for workload in workloads.all() {
        let reference = workload.push(&registry);
        index(&reference, arguments);
        node.pull(how, &reference);
        let modes = node.daemon.modes(&reference);
        assert_eq!(modes.len(), workload.image().layers().len(), "{modes:?}");
        assert!(modes.iter().any(|(mode, _)| mode == "lazy"), "{modes:?}");
        if arguments == ALL {
            assert!(modes.iter().all(|(mode, _)| mode == "lazy"), "{modes:?}");
        } else {
            // The others are small: they are fetched by us, and never handed back.
            assert!(modes.iter().all(|(mode, _)| mode != "containerd"), "{modes:?}");
        }
        // Layers that an image before has brought are not prepared again.
        lazy = node.daemon.logged("remote-snapshot-prepared", "true");
        eager = node.daemon.logged("local-snapshot-prepared", "true");
        let mut container = Container::run(&node, how.namespace(), &reference);
        container.wait_for(workload.ready(), Duration::from_secs(120));
    }
    assert_eq!(node.daemon.logged("defer-snapshot-runtime", "true"), 0);
    let layers: std::collections::BTreeSet<_> = workloads
        .all()
        .iter()
        .flat_map(|workload| workload.image().layers())
        .map(|layer| &layer.digest)
        .collect();
    assert_eq!(lazy + eager, layers.len(), "{lazy} lazy, {eager} eager");
    assert!(lazy >= 4 && (eager == 0) == (arguments == ALL), "{lazy} lazy, {eager} eager");
}

#[test]
fn workloads_pulled_by_cri_run_with_every_layer_lazy() {
    every_workload_reaches_its_ready_line(Pull::Cri, ALL);
}

#[test]
fn workloads_pulled_by_cri_run_with_large_layers_lazy() {
    every_workload_reaches_its_ready_line(Pull::Cri, LARGE);
}

#[test]
fn workloads_pulled_by_soci_run() {
    every_workload_reaches_its_ready_line(Pull::Soci, ALL);
}

#[test]
fn workloads_pulled_by_nerdctl_run() {
    every_workload_reaches_its_ready_line(Pull::Nerdctl, ALL);
}

#[test]
fn workloads_pulled_by_ctr_through_the_transfer_service_run() {
    every_workload_reaches_its_ready_line(Pull::Ctr, LARGE);
}

#[test]
fn what_a_container_writes_is_its_own() {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = Node::start() else { return };
    let reference = workloads.named("redis").push(&registry);
    index(&reference, ALL);
    node.pull(Pull::Cri, &reference);
    let namespace = Pull::Cri.namespace();
    let stay = ["/bin/sh", "-c", "echo ready; exec sleep infinity"];
    let [mut first, mut second] = [(); 2].map(|()| Container::with(&node, namespace, &reference, &[], &stay));
    first.wait_for("ready", Duration::from_secs(60));
    second.wait_for("ready", Duration::from_secs(60));
    let script = "echo more >> /srv/lower/kept/1; rm /srv/links/absolute; chmod 0700 /srv/names; \
                  rm -r /srv/lower/shared; mkdir /srv/lower/shared; echo own > /srv/lower/shared/own; \
                  mv /srv/attributes/fine /srv/fine; ln /srv/random /srv/random-too; \
                  setfattr -n user.own -v 1 /srv/attributes/xattr; chown 7:8 /srv/attributes/owned";
    let before = second.exec(&["/bin/sh", "-c", "find /srv -printf '%p %s %T@ %m %U %l\\n' | LC_ALL=C sort"]);
    first.exec(&["/bin/sh", "-euc", script]);
    let after = second.exec(&["/bin/sh", "-c", "find /srv -printf '%p %s %T@ %m %U %l\\n' | LC_ALL=C sort"]);
    assert_eq!(before, after);
    let seen = first.exec(&[
        "/bin/sh",
        "-c",
        "tail -n 1 /srv/lower/kept/1; ls /srv/lower/shared; stat -c %h /srv/random",
    ]);
    assert_eq!(seen, "more\nown\n2\n");

    let upper = node.upper(namespace, first.name());
    let kept = std::fs::read_to_string(upper.join("srv/lower/kept/1")).unwrap();
    assert!(kept.ends_with("more\nmore\n"), "{kept}");
    for path in ["srv/lower/shared/own", "srv/fine", "srv/random-too", "srv/attributes/owned"] {
        assert!(upper.join(path).exists(), "{path}");
    }
    for whiteout in ["srv/links/absolute", "srv/attributes/fine"] {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let metadata = std::fs::symlink_metadata(upper.join(whiteout)).unwrap();
        assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0, "{whiteout}");
    }
}
