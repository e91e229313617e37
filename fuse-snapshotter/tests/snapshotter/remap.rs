//! Containers in user namespaces.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use testdata::docker_registry::DockerRegistry;
use testdata::workloads::Workloads;

use crate::container::Container;
use crate::daemon::index;
use crate::node::{Node, Pull};

const MAPPED: &[&str] = &["--remap-labels", "--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];

#[test]
fn owners_are_mapped_also_after_a_restart() {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(mut node) = Node::start() else { return };
    let workload = workloads.named("redis");
    let reference = workload.push(&registry);
    // Lazy and unpacked layers.
    for arguments in
        [&["--min-layer-size", "0", "--existing-index", "allow"][..], &["--existing-index", "allow"]]
    {
        index(&reference, arguments);
        node.pull(Pull::Cri, &reference);
        for round in 0..2 {
            owners(&node, &reference);
            // Beside it, one that is not mapped.
            let mut plain = Container::run(&node, Pull::Cri.namespace(), &reference);
            plain.wait_for(workload.ready(), Duration::from_secs(60));
            drop(plain);
            if round == 0 {
                node.restart(Signal::TERM);
            }
        }
        node.remove(Pull::Cri, &reference).unwrap();
    }
}

fn owners(node: &Node, reference: &str) {
    let namespace = Pull::Cri.namespace();
    let stay = ["/bin/sh", "-c", "echo ready; exec sleep infinity"];
    let mut container = Container::with(node, namespace, reference, MAPPED, &stay);
    container.wait_for("ready", Duration::from_secs(30));
    let inside = container.exec(&[
        "/bin/stat",
        "-c",
        "%n %u:%g %a",
        "/",
        "/usr/bin/env",
        "/srv/attributes/owned",
        "/srv/attributes/link",
        "/srv/attributes/setgid-directory",
        "/srv/attributes/setuid",
        "/srv/lower/kept/1",
    ]);
    let expected = "/ 0:0 751\n/usr/bin/env 0:0 755\n/srv/attributes/owned 1234:5678 644\n\
                    /srv/attributes/link 1234:5678 777\n/srv/attributes/setgid-directory 1000:1000 2775\n\
                    /srv/attributes/setuid 0:0 4755\n/srv/lower/kept/1 0:0 644\n";
    assert_eq!(inside, expected);
    container.exec(&[
        "/bin/sh",
        "-euc",
        "echo more >> /srv/lower/kept/1; chown 5:6 /srv/lower/kept/1; echo x > /srv/new",
    ]);
    // From outside, by way of the container's own root directory.
    let root = PathBuf::from(format!("/proc/{}/root", container.pid()));
    let owner = |path: &str| {
        let metadata = std::fs::symlink_metadata(root.join(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("usr/bin/env"), (100_000, 100_000));
    assert_eq!(owner("srv/attributes/owned"), (101_234, 105_678));
    assert_eq!(owner("srv/lower/kept/1"), (100_005, 100_006));
    assert_eq!(owner("srv/new"), (100_000, 100_000));
}
