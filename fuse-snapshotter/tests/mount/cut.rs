//! A link that is cut in the middle of a read: everything is lost, and nobody is told.

use std::time::{Duration, Instant};

use testdata::image::{Compression, Entry, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::registry::TestRegistry;

use crate::cable::Cable;
use crate::program::{Mount, index, program};

/// How long the link is cut: longer than any single limit, so that only going on trying helps.
const CUT: Duration = Duration::from_secs(30);
const FILES: u64 = 2;
const SIZE: u64 = 8 << 20;

fn layer() -> Layer {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    for number in 0..FILES {
        layer.add(Entry::made(format!("data/{number}"), Texture::Random, number, SIZE));
    }
    layer.finish()
}

/// A registry so slow that a read takes seconds, and an image in it.
fn registry(layer: &Layer) -> TestRegistry {
    let registry = TestRegistry::builder().bandwidth(3 << 20).start_blocking();
    ImageBuilder::new().layer(layer.clone()).build().put_into(&registry, "app", "1");
    index(&format!("{}/app:1", registry.host()), &["--min-layer-size", "0", "--span-size", "1000000"]);
    registry
}

fn mount(cable: &Cable, arguments: &[&str]) -> Mount {
    let reference = format!("{}/app:1", cable.host());
    let arguments = [&["--plain-http"], arguments].concat();
    let mut command = cable.command(&program("soci-snapshotter-grpc"));
    Mount::with(&reference, &arguments, &mut command).unwrap_or_else(|error| panic!("{error}"))
}

fn content(layer: &Layer, number: u64) -> Vec<u8> {
    layer.entries[number as usize].content().unwrap().to_vec()
}

/// Waits until the registry has sent so much more.
fn sent(registry: &TestRegistry, more: u64) {
    let (from, end) = (registry.bytes_sent(), Instant::now() + Duration::from_secs(120));
    while registry.bytes_sent() < from + more {
        assert!(Instant::now() < end, "only {} bytes were sent", registry.bytes_sent() - from);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn reads_wait_while_the_link_is_cut_and_go_on() {
    let layer = layer();
    let registry = registry(&layer);
    let Some(cable) = Cable::to(&registry) else { return };
    let mount = mount(&cable, &[]);
    let path = mount.path().join("data/1");
    let reading = std::thread::spawn(move || std::fs::read(path));
    sent(&registry, 2 << 20);
    cable.cut();
    std::thread::sleep(CUT);
    assert!(!reading.is_finished(), "{:?}", reading.join().unwrap().map(|read| read.len()));
    cable.mend();
    assert!(reading.join().unwrap().unwrap() == content(&layer, 1));
    mount.finish();
}

#[test]
fn reads_fail_at_the_configured_deadline_and_work_again_afterwards() {
    let layer = layer();
    let registry = registry(&layer);
    let Some(cable) = Cable::to(&registry) else { return };
    let mount = mount(&cable, &["--fetch-timeout", "4"]);
    let path = mount.path().join("data/0");
    let reading = std::thread::spawn(move || std::fs::read(path));
    sent(&registry, 2 << 20);
    cable.cut();
    let error = reading.join().unwrap().expect_err("the registry cannot be reached");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    cable.mend();
    // The first tries may still meet the end of the cut.
    let end = Instant::now() + Duration::from_secs(120);
    let read = loop {
        match std::fs::read(mount.path().join("data/0")) {
            Err(error) => assert!(Instant::now() < end, "{error}"),
            Ok(read) => break read,
        }
    };
    assert!(read == content(&layer, 0));
    mount.finish();
}

#[test]
fn the_background_fetch_goes_on_after_a_cut() {
    let layer = layer();
    let registry = registry(&layer);
    let Some(cable) = Cable::to(&registry) else { return };
    // The state files, which say how far it has got, are there with FUSE only.
    let mount = mount(&cable, &["--background", "--front", "fuse"]);
    sent(&registry, 2 << 20);
    cable.cut();
    std::thread::sleep(CUT);
    cable.mend();
    // Nobody asks for anything; when all has been sent, it is there without the registry.
    sent(&registry, layer.size - (4 << 20));
    let end = Instant::now() + Duration::from_secs(120);
    let state = mount.path().join(".soci-snapshotter").join(format!("{}.json", layer.digest));
    let fetched = || {
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
        state["fetchedPercent"].as_f64().unwrap()
    };
    while fetched() < 100.0 {
        assert!(Instant::now() < end, "{}", fetched());
        std::thread::sleep(Duration::from_millis(50));
    }
    cable.cut();
    for number in 0..FILES {
        assert!(
            std::fs::read(mount.path().join(format!("data/{number}"))).unwrap() == content(&layer, number)
        );
    }
    mount.finish();
}
