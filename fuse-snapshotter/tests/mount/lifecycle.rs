//! Beginning and end of a mount, and what it costs in between.

use rustix::process::Signal;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::{Auth, Redirect, TestRegistry};

use crate::can_mount;
use crate::program::{Mount, index, is_mounted};

/// An image of one layer of about 12 MB, mostly incompressible, and its small file.
fn big(registry: &TestRegistry) -> String {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    for number in 0..12 {
        layer.add(Entry::made(format!("data/{number}"), Texture::Random, number, 1 << 20));
        layer.add(Entry::made(format!("small/{number}"), Texture::Text, number, 1000));
    }
    ImageBuilder::new().layer(layer.finish()).build().put_into(registry, "big", "1");
    format!("{}/big:1", registry.host())
}

#[test]
fn a_small_file_costs_its_span_and_one_request() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start_blocking();
    let reference = big(&registry);
    index(&reference, &["--min-layer-size", "0", "--span-size", "1048576"]);
    let mount = Mount::new(&reference, &[]);
    registry.clear_requests();
    let read = std::fs::read(mount.path().join("small/7")).unwrap();
    assert_eq!(read.len(), 1000);
    assert_eq!(registry.requests().len(), 1, "{:?}", registry.requests());
    assert!(registry.bytes_sent() < 3 << 20);
    // From the page cache and the cache, nothing more.
    std::fs::read(mount.path().join("small/7")).unwrap();
    assert_eq!(registry.requests().len(), 1);
    let report = mount.finish();
    // The one behind it rides along in the same request, and may have arrived by now.
    let spans = report["layers"][0]["fetched_spans"].as_u64().unwrap();
    assert!((1..=2).contains(&spans), "{report}");
}

#[test]
fn nothing_is_fetched_that_is_not_read_unless_in_background() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference = big(&registry);
    index(&reference, &["--min-layer-size", "0", "--span-size", "1048576"]);
    let mount = Mount::new(&reference, &[]);
    registry.clear_requests();
    assert_eq!(std::fs::read_dir(mount.path().join("data")).unwrap().count(), 12);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(registry.requests().len(), 0);
    mount.finish();

    let mount = Mount::new(&reference, &["--background"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let spans = loop {
        let sent = registry.bytes_sent();
        assert!(std::time::Instant::now() < deadline, "only {sent} bytes in background");
        if sent > 12 << 20 {
            break sent;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(spans < 16 << 20, "{spans} bytes for a layer of 12 MiB");
    // Once everything is there, the registry is not needed any more.
    std::thread::sleep(std::time::Duration::from_millis(500));
    registry.set_down(true);
    for number in 0..12 {
        assert_eq!(std::fs::read(mount.path().join(format!("data/{number}"))).unwrap().len(), 1 << 20);
    }
    mount.finish();
}

#[test]
fn signals_unmount_and_the_report_is_printed() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference = big(&registry);
    index(&reference, &["--min-layer-size", "0"]);
    for signal in [Signal::INT, Signal::TERM] {
        let mut mount = Mount::new(&reference, &[]);
        std::fs::read(mount.path().join("small/3")).unwrap();
        mount.signal(signal);
        let (code, report) = mount.wait();
        assert_eq!(code, Some(0));
        assert_eq!(report["layers"][0]["mode"], "lazy");
        assert!(report["layers"][0]["fetched"].as_u64().unwrap() > 0, "{report}");
        assert!(!is_mounted(&mount.path()));
        let left =
            std::fs::read_dir(mount.root().join("mounts")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["lock"]);
    }
    // A file that is open does not hold the program up.
    let mut mount = Mount::new(&reference, &[]);
    let _open = std::fs::File::open(mount.path().join("data/3")).unwrap();
    mount.signal(Signal::TERM);
    assert_eq!(mount.wait().0, Some(0));
    assert!(!is_mounted(&mount.path()));
    // Somebody else unmounts it.
    let mut mount = Mount::new(&reference, &[]);
    rustix::mount::unmount(mount.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(mount.wait().0, Some(0));
}

#[test]
fn what_was_read_before_is_not_fetched_again_by_the_next_mount() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().auth(Auth::bearer("me", "secret")).start_blocking();
    let reference = big(&registry);
    let user = ["--user", "me:secret"];
    index(&reference, &["--min-layer-size", "0", "--span-size", "1048576", "--user", "me:secret"]);
    let root = tempfile::tempdir().unwrap();
    let rooted = [&user[..], &["--root", root.path().to_str().unwrap()]].concat();
    let first = Mount::new(&reference, &rooted);
    let content = std::fs::read(first.path().join("data/5")).unwrap();
    // Another mount beside the first one has a cache of its own, and both work.
    let beside = Mount::new(&reference, &rooted);
    assert_eq!(std::fs::read(beside.path().join("data/5")).unwrap(), content);
    assert!(beside.finish()["layers"][0]["fetched_spans"].as_u64().unwrap() > 0);
    first.finish();
    // The next one finds what the first one read.
    let next = Mount::new(&reference, &rooted);
    assert_eq!(std::fs::read(next.path().join("data/5")).unwrap(), content);
    let report = next.finish();
    assert_eq!(report["layers"][0]["fetched_spans"], 0, "{report}");
}

#[test]
fn errors_say_what_is_wrong() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference = big(&registry);
    let failure = |reference: &str, arguments: &[&str]| Mount::try_new(reference, arguments).err().unwrap();
    assert!(failure(&reference.replace(":1", ":2"), &[]).contains("not found"));
    let digest = format!("sha256:{}", "0".repeat(64));
    assert!(failure(&reference, &["--soci-index-digest", &digest]).contains(&digest));
    assert!(failure(&reference, &["--platform", "linux/s390x"]).contains("s390x"));
    registry.set_down(true);
    let said = failure(&reference, &[]);
    assert!(said.contains(registry.host().as_str()), "{said}");
}
