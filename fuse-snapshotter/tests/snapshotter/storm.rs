//! Many images, pulled and removed at once.

use std::sync::Mutex;
use std::time::Duration;

use testdata::image::{Compression, Entry, Image, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::registry::TestRegistry;

use crate::daemon::{Held, eventually, index};
use crate::node::{Node, Pull, SOCI};

const IMAGES: u64 = 20;
const CLIENTS: usize = 8;
/// How often, if the variable `SOCI_TEST_ROUNDS` does not say: enough that what leaks for each image exceeds what a
/// process may keep, such as idle connections.
const ROUNDS: usize = 3;
/// Descriptors and threads that may be idle at one time and not at another.
const IDLE: usize = 16;

fn layer(seed: u64, files: u64) -> Layer {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::dir(format!("layer-{seed}")));
    for number in 0..files {
        let name = format!("layer-{seed}/{number}");
        layer.add(Entry::made(name, Texture::Binary, seed * 100 + number, 30_000));
    }
    layer.finish()
}

/// Twenty images over two layers that all have, and one that every other has; the last layer of every fourth has no
/// zTOC, so that it is unpacked.
fn images(registry: &TestRegistry) -> Vec<(String, Image)> {
    let shared = [layer(1, 20), layer(2, 5), layer(3, 5)];
    let make = |number: u64| {
        let mut image = ImageBuilder::new().layer(shared[0].clone()).layer(shared[1].clone());
        if number.is_multiple_of(2) {
            image = image.layer(shared[2].clone());
        }
        let last = layer(1000 + number, if number.is_multiple_of(4) { 1 } else { 5 });
        let image = image.layer(layer(100 + number, 5)).layer(last).build();
        let name = format!("storm/{number}");
        image.put_into(registry, &name, "1");
        let reference = format!("{}/{name}:1", registry.host());
        index(&reference, &["--min-layer-size", "40000"]);
        (reference, image)
    };
    (0..IMAGES).map(make).collect()
}

#[test]
fn images_pulled_and_removed_at_once_leave_nothing() {
    let registry = TestRegistry::builder().start_blocking();
    let Some(mut node) = Node::start() else { return };
    let images = images(&registry);
    let rounds = std::env::var("SOCI_TEST_ROUNDS").ok().map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut first = None;
    for round in 0..rounds.max(2) {
        pull_and_remove(&node, &images, round);
        let held = settled(&node, first.as_ref());
        first.get_or_insert(held);
    }
    assert!(node.daemon.is_running());
}

/// All images are pulled at once and looked into, each client taking the next, and then removed at once. Not both at the
/// same time: containerd 1.6 takes no lease of a layer that it finds there, so a pull fails with any snapshotter when
/// another client removes the last image that has the layer.
fn pull_and_remove(node: &Node, images: &[(String, Image)], round: usize) {
    each(images, |client, number, reference, image| {
        let how = way(client + round);
        node.pull(how, reference);
        let mounted = node.mount(how.namespace(), SOCI, image, number.is_multiple_of(3));
        let file = mounted.path().join(format!("layer-{}/0", 1000 + number));
        let content = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(content.len(), 30_000);
    });
    each(images, |_, _, reference, _| {
        for how in [Pull::Cri, Pull::Soci] {
            let known = node.ok(how.namespace(), &["image", "list", "--quiet"]);
            if known.lines().any(|name| name == reference) {
                node.remove(how, reference)
                    .unwrap_or_else(|error| panic!("round {round}, {reference}: {error}"));
            }
        }
    });
}

/// Both ways in each round, and each image both ways over the rounds.
fn way(number: usize) -> Pull {
    if number.is_multiple_of(2) { Pull::Cri } else { Pull::Soci }
}

/// Does something with every image, in as many threads as there are clients.
fn each(images: &[(String, Image)], work: impl Fn(usize, usize, &str, &Image) + Sync) {
    let todo = Mutex::new(images.iter().enumerate().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (todo, work) = (&todo, &work);
            scope.spawn(move || {
                loop {
                    let next = todo.lock().unwrap().pop();
                    let Some((number, (reference, image))) = next else { return };
                    work(client, number, reference, image);
                }
            });
        }
    });
}

/// Waits until everything is given back that a round used. What the first round leaves (the FUSE file system itself, a
/// pool of threads) may stay; nothing may be added to it.
fn settled(node: &Node, first: Option<&Held>) -> Held {
    let mut held = node.daemon.held();
    eventually("everything is given back", Duration::from_secs(60), || {
        for namespace in [Pull::Cri, Pull::Soci].map(Pull::namespace) {
            let left = node.snapshots(namespace);
            if !left.is_empty() {
                return Err(format!("snapshots in {namespace}: {left:?}"));
            }
        }
        held = node.daemon.held();
        let own = node.daemon.root().join("snapshotter/snapshots");
        let below = held.mounts.iter().filter(|point| point.starts_with(&own)).count();
        let more = first.is_some_and(|first| {
            held.mounts.len() > first.mounts.len()
                || held.descriptors > first.descriptors + IDLE
                || held.threads > first.threads + IDLE
        });
        let left = below + held.snapshots + held.unpacking + held.ztocs;
        if left > 0 || more { Err(format!("{held:?}, after the first round {first:?}")) } else { Ok(()) }
    });
    held
}
