//! Round trips to the registry before a container's process runs.
//!
//! Each answer takes [`LATENCY`], far longer than the work in between, so that requests which wait for each other's answers
//! are told from those made at once by whether they overlap. Nothing is bounded by time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use testdata::image::host::HostFiles;
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::{Redirect, Request, TestRegistry, longest_chain};

use crate::container::Container;
use crate::converted::convert;
use crate::daemon::index;
use crate::node::{Node, Pull};

const LATENCY: Duration = Duration::from_millis(400);
const LAYERS: u64 = 12;

fn image() -> Image {
    let mut shell = HostFiles::new();
    shell.binary("/bin/sh").binary("/bin/sleep");
    let mut image = ImageBuilder::new().layer(shell.layer(Compression::GZIP));
    for number in 1..LAYERS {
        let mut layer = LayerBuilder::new(Compression::GZIP);
        layer.add(Entry::made(format!("made-{number}"), Texture::Random, number, 100_000));
        image = image.layer(layer.finish());
    }
    image.cmd(&["/bin/sh", "-c", "echo ready; exec sleep 1000"]).build()
}

/// What the container's program, or runc, reads. Each layer's first bytes are read by the daemon for itself.
fn is_content(request: &Request) -> bool {
    request.range.is_some_and(|range| range != (0, 1))
}

/// The requests from the first one on until the container's process runs, contents left out.
fn start(registry: &TestRegistry, image: &Image, how: Pull, version: u32) -> Option<Vec<Request>> {
    let node = Node::with("[background_fetch]\ndisable = true\n")?;
    image.put_into(registry, "app", "1");
    let mut reference = format!("{}/app:1", registry.host());
    if version == 1 {
        index(&reference, &["--min-layer-size", "0"]);
    } else {
        let converted = format!("{}/app:2", registry.host());
        convert(&reference, &converted);
        reference = converted;
    }
    registry.clear_requests();
    registry.set_latency(LATENCY);
    node.pull(how, &reference);
    let mut container = Container::run(&node, how.namespace(), &reference);
    container.wait_for("ready", Duration::from_secs(120));
    let modes = node.daemon.modes(&reference);
    assert!(modes.len() == LAYERS as usize && modes.iter().all(|(mode, _)| mode == "lazy"), "{modes:?}");
    Some(registry.requests().into_iter().filter(|request| !is_content(request)).collect())
}

/// How many of them are made one after the other once the image manifest has been answered.
fn after_the_manifest(requests: &[Request]) -> usize {
    // The root of a converted image is an image index: the manifest is the last that comes before the configuration.
    let first_blob = requests.iter().position(|request| request.path.contains("/blobs/")).unwrap();
    let manifest = requests[..first_blob].iter().filter(|request| request.path.contains("/manifests/"));
    let manifest =
        manifest.filter(|request| request.ended.is_some_and(|end| end <= requests[first_blob].time));
    let answered = manifest.filter_map(|request| request.ended).max().unwrap();
    longest_chain(requests.iter().filter(|request| request.time >= answered)).len()
}

fn show(requests: &[Request]) -> String {
    let start = requests.first().map(|request| request.time);
    let line = |request: &Request| {
        let at = |time: Instant| start.map_or(0, |start| time.saturating_duration_since(start).as_millis());
        let (begin, end) = (at(request.time), request.ended.map(at).unwrap_or_default());
        let Request { connection, status, method, path, range, .. } = request;
        format!("{begin:6} {end:6} {connection:3} {status} {method} {path} {range:?}\n")
    };
    requests.iter().map(line).collect()
}

/// Nothing is asked for twice, by whomever.
fn assert_nothing_twice(requests: &[Request]) {
    let mut seen = HashSet::new();
    for Request { method, path, query, range, listener, .. } in requests {
        let new = seen.insert((method, path, query, range, listener));
        assert!(new, "{method} {path} {range:?} twice:\n{}", show(requests));
    }
}

fn assert_trips(how: Pull, version: u32, redirect: bool, most: usize) {
    let mut builder = TestRegistry::builder().referrers_api(false);
    if redirect {
        builder = builder.redirect_blobs(Redirect::default());
    }
    let registry = builder.start_blocking();
    let Some(requests) = start(&registry, &image(), how, version) else { return };
    let trips = after_the_manifest(&requests);
    assert!(trips <= most, "{trips} round trips:\n{}", show(&requests));
    assert_nothing_twice(&requests);
}

/// The configuration and the index at once, then all zTOCs.
#[test]
fn soci_pull_of_a_converted_image_takes_two_round_trips_after_the_manifest() {
    assert_trips(Pull::Soci, 2, false, 2);
}

/// containerd's for the configuration, then the index, then all zTOCs, over connections that were opened meanwhile.
#[test]
fn a_pull_of_a_converted_image_by_cri_takes_three_round_trips_after_the_manifest() {
    let registry = TestRegistry::builder().start_blocking();
    let Some(requests) = start(&registry, &image(), Pull::Cri, 2) else { return };
    let trips = after_the_manifest(&requests);
    assert!(trips <= 3, "{trips} round trips:\n{}", show(&requests));
    assert_nothing_twice(&requests);
    let index = requests.iter().filter(|request| request.path.contains("/manifests/")).max_by_key(|r| r.time);
    let answered = index.and_then(|index| index.ended).unwrap();
    let late: Vec<_> = requests.iter().filter(|request| request.connected > answered).collect();
    assert!(late.is_empty(), "connections opened late: {late:#?}\n{}", show(&requests));
}

/// With storage elsewhere, blobs are two round trips each.
#[test]
fn redirects_of_layers_are_followed_while_the_index_is_fetched() {
    assert_trips(Pull::Cri, 2, true, 5);
}

/// What refers to the image is one more round trip, the referrers API and the fallback tag at once.
#[test]
fn an_index_beside_the_image_takes_one_round_trip_more() {
    assert_trips(Pull::Cri, 1, false, 4);
    assert_trips(Pull::Soci, 1, false, 4);
}
