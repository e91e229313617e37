//! What a container sees, to the last attribute, compared with what overlayfs makes of the same image.

use testdata::docker_registry::DockerRegistry;
use testdata::walk::{View, compare};
use testdata::workloads::Workloads;

use crate::daemon::index;
use crate::node::{Node, Pull, SOCI};

fn the_view_is_overlayfs_s(names: &[&str], arguments: &[&str]) {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = Node::start() else { return };
    for name in names {
        let workload = workloads.named(name);
        let reference = workload.push(&registry);
        index(&reference, arguments);
        // In a namespace of its own, so that containerd has no reason to take one for the other.
        node.ok("overlay", &["image", "pull", "--plain-http", "--snapshotter", "overlayfs", &reference]);
        node.pull(Pull::Cri, &reference);
        let expected = workload.expected();
        for writable in [false, true] {
            let overlay = node.mount("overlay", "overlayfs", workload.image(), writable);
            let lazy = node.mount(Pull::Cri.namespace(), SOCI, workload.image(), writable);
            let (mut wanted, found) = (View::of(overlay.path()), View::of(lazy.path()));
            // containerd's overlayfs leaves out what a layer says of the root directory; umoci does not.
            let mut root = expected.get("").unwrap().clone();
            if writable {
                // An upper directory is new.
                root.mtime = found.tree.get("").unwrap().mtime;
            }
            wanted.tree.0.insert(Vec::new(), root);
            let compared = compare(&found.tree, &wanted.tree);
            compared.unwrap_or_else(|error| panic!("{name}, writable {writable}:\n{error}"));
            found.check_one_device().unwrap();
            if !writable {
                // What we compare with is right, too.
                compare(&wanted.tree, &expected)
                    .unwrap_or_else(|error| panic!("overlayfs, {name}:\n{error}"));
            }
            for gone in workload.gone() {
                assert!(found.tree.get(gone).is_none(), "{gone}");
            }
        }
        let modes = node.daemon.modes(&reference);
        assert!(modes.iter().any(|(mode, _)| mode == "lazy"), "{modes:?}");
    }
}

#[test]
fn the_view_is_overlayfs_s_with_every_layer_lazy() {
    the_view_is_overlayfs_s(
        &["python", "nodejs", "postgresql", "redis", "nginx"],
        &["--min-layer-size", "0"],
    );
}

/// Lazy and unpacked layers in turn: runs of lazy layers, with directories between them.
#[test]
fn the_view_is_overlayfs_s_with_some_layers_lazy() {
    the_view_is_overlayfs_s(&["python", "redis"], &[]);
    the_view_is_overlayfs_s(&["nginx"], &["--min-layer-size", "100000"]);
}
