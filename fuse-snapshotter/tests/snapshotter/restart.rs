//! A daemon that ends and is started again.

use std::time::Duration;

use rustix::process::Signal;
use testdata::docker_registry::DockerRegistry;
use testdata::registry::TestRegistry;
use testdata::walk::{compare, walk};
use testdata::workloads::Workloads;

use crate::container::Container;
use crate::daemon::{eventually, index, mounts_below};
use crate::fallback::{assert_runs, image};
use crate::node::{Node, Pull, SOCI};

const ALL: &[&str] = &["--min-layer-size", "0"];

#[test]
fn all_snapshots_are_usable_after_a_restart() {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(mut node) = Node::start() else { return };
    let namespace = Pull::Cri.namespace();
    let names = ["python", "redis", "nginx"];
    let references = names.map(|name| workloads.named(name).push(&registry));
    for (number, reference) in references.iter().enumerate() {
        index(reference, if number == 1 { &[] } else { ALL });
        node.pull(Pull::Cri, reference);
    }
    // A container that is made, and not started yet.
    let made = node.containerd.container_name();
    node.ok(namespace, &["containers", "create", "--snapshotter", SOCI, &references[1], &made]);
    let before =
        names.map(|name| walk(node.mount(namespace, SOCI, workloads.named(name).image(), false).path()));
    let snapshots = node.snapshots(namespace);
    for signal in [Signal::TERM, Signal::KILL, Signal::INT] {
        node.daemon.stop(signal);
        if signal == Signal::INT {
            let left = mounts_below(&node.daemon.root());
            assert!(left.is_empty(), "{left:?}");
        }
        node.start_again();
        assert_eq!(node.snapshots(namespace), snapshots, "{signal:?}");
        for ((reference, name), before) in references.iter().zip(names).zip(&before) {
            let mounted = node.mount(namespace, SOCI, workloads.named(name).image(), false);
            compare(&walk(mounted.path()), before)
                .unwrap_or_else(|error| panic!("{signal:?}, {name}: {error}"));
            drop(mounted);
            let mut container = Container::run(&node, namespace, reference);
            container.wait_for(workloads.named(name).ready(), Duration::from_secs(60));
        }
    }
    let mounts = node.ok(namespace, &["snapshots", "--snapshotter", SOCI, "mounts", "/nowhere", &made]);
    assert!(mounts.contains("lowerdir="), "{mounts}");
    node.ok(namespace, &["containers", "delete", &made]);
}

#[test]
fn a_restart_needs_no_registry() {
    let registry = TestRegistry::builder().start_blocking();
    let Some(mut node) = Node::start() else { return };
    let image = image();
    image.put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, ALL);
    node.pull(Pull::Cri, &reference);
    // What has been read is in the cache.
    assert_runs(&node, Pull::Cri, &reference, &image);
    for signal in [Signal::TERM, Signal::KILL] {
        node.daemon.stop(signal);
        registry.set_down(true);
        node.start_again();
        assert_runs(&node, Pull::Cri, &reference, &image);
        // What has not is there again with the registry.
        registry.set_down(false);
        let mounted = node.mount(Pull::Cri.namespace(), SOCI, &image, false);
        assert_eq!(std::fs::read(mounted.path().join("data/0")).unwrap().len(), 1 << 20);
    }
}

/// The space of a removed image is given back, of what was pulled before a restart too.
#[test]
fn removal_gives_everything_back() {
    let registry = TestRegistry::builder().start_blocking();
    let Some(mut node) = Node::start() else { return };
    let image = image();
    image.put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, ALL);
    for signal in [None, Some(Signal::TERM)] {
        node.pull(Pull::Cri, &reference);
        assert_runs(&node, Pull::Cri, &reference, &image);
        assert!(node.daemon.status()["cache_used"].as_u64().unwrap() > 0);
        if let Some(signal) = signal {
            node.restart(signal);
        }
        node.remove(Pull::Cri, &reference).unwrap();
        eventually("removal", Duration::from_secs(30), || {
            let (held, status) = (node.daemon.held(), node.daemon.status());
            let empty =
                held.snapshots == 0 && held.unpacking == 0 && held.ztocs == 0 && status["cache_used"] == 0;
            if empty { Ok(()) } else { Err(format!("{held:?} {status}")) }
        });
        assert_eq!(node.daemon.status()["images"], serde_json::json!([]));
    }
}
