//! Recorded prefetch: the second cold start of an image on a node, and the first one on another node.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testdata::docker_registry::DockerRegistry;
use testdata::image::host::HostFiles;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::TestRegistry;
use testdata::workloads::{Workload, Workloads};

use crate::container::Container;
use crate::daemon::{PATIENCE, eventually, index, program};
use crate::node::{Node, Pull, said};

const ALL: &[&str] = &["--min-layer-size", "0"];

/// Nothing but reads and prefetch fetches, and a start is soon over.
const CONFIG: &str =
    "[background_fetch]\ndisable = true\n[prefetch]\nforecast = false\nrecord_quiet_sec = 1\n";
/// The same without recordings.
const NEITHER: &str = "[background_fetch]\ndisable = true\n[prefetch]\nenable = false\nforecast = false\nrecord_quiet_sec = 1\n";

/// What the daemon logs when a forecast has been fetched.
const FORESEEN: &str = "fetched what the image's program reads at its start";

/// What the daemon says of an image.
fn image(node: &Node, reference: &str) -> serde_json::Value {
    let status = node.daemon.status();
    let images = status["images"].as_array().unwrap();
    images.iter().find(|image| image["image"] == reference).cloned().unwrap_or_default()
}

/// Waits until what was recorded, or an artifact says, has been fetched; says from where that was known.
fn prefetched(node: &Node, reference: &str) -> serde_json::Value {
    eventually("the start is prefetched", PATIENCE, || {
        let prefetch = &image(node, reference)["prefetch"];
        if prefetch["running"] == false { Ok(()) } else { Err(prefetch.to_string()) }
    });
    image(node, reference)["prefetch"].clone()
}

/// Ranged reads of the image's layers so far.
fn requests(node: &Node, reference: &str) -> u64 {
    let image = image(node, reference);
    image["layers"].as_array().unwrap().iter().map(|layer| layer["requests"].as_u64().unwrap()).sum()
}

/// Runs the image's program until it is ready.
fn run(node: &Node, how: Pull, reference: &str, workload: &Workload) {
    let mut container = Container::run(node, how.namespace(), reference);
    container.wait_for(workload.ready(), Duration::from_secs(120));
}

/// The recording of the image, and how many reads it says had to wait. `before`: another one than this.
fn recorded(node: &Node, before: Option<&serde_json::Value>) -> serde_json::Value {
    let read = || -> Result<serde_json::Value, String> {
        let directory = node.daemon.root().join("recordings");
        let mut files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|path| path.extension().is_some_and(|extension| extension == "json"));
        let file: PathBuf = file.ok_or("nothing is recorded")?;
        Ok(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
    };
    eventually("the start is recorded", PATIENCE, || match read()? {
        recording if before == Some(&recording) => Err("it is the one before".into()),
        _ => Ok(()),
    });
    read().unwrap()
}

/// Removes the image, and waits until its cache is gone.
fn remove(node: &Node, how: Pull, reference: &str) {
    node.remove(how, reference).unwrap();
    eventually("the cache is empty", PATIENCE, || {
        let status = node.daemon.status();
        let there = (status["images"].as_array().map_or(0, Vec::len), status["cache_used"].as_u64());
        if there == (0, Some(0)) { Ok(()) } else { Err(format!("{there:?}")) }
    });
}

fn soci(node: &Node, arguments: &[&str]) -> std::process::Output {
    Command::new(program("soci"))
        .args(["--address", &node.containerd.address(), "--namespace", Pull::Soci.namespace()])
        .arg("--root")
        .arg(node.daemon.file("soci"))
        .args(arguments)
        .env("HOME", node.daemon.file("home"))
        .output()
        .unwrap()
}

fn ok(node: &Node, arguments: &[&str]) -> String {
    let output = soci(node, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_recorded_start_waits_for_nothing_the_next_time() {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(mut node) = Node::with(CONFIG) else { return };
    let workload = workloads.named("redis");
    let reference = workload.push(&registry);
    index(&reference, ALL);
    for how in [Pull::Soci, Pull::Cri] {
        node.pull(how, &reference);
        run(&node, how, &reference, workload);
        let first = recorded(&node, None);
        let waited = first["waited"].as_u64().unwrap();
        assert!(first["cold"] == true && waited > 3, "{waited} waited, {first}");
        // It survives the daemon, too.
        remove(&node, how, &reference);
        node.restart(Signal::TERM);

        node.pull(how, &reference);
        let prefetch = prefetched(&node, &reference);
        assert_eq!(prefetch["source"], "recording");
        assert_eq!(prefetch["failed"], 0);
        let before = requests(&node, &reference);
        run(&node, how, &reference, workload);
        let second = recorded(&node, Some(&first));
        let demanded = requests(&node, &reference) - before;
        println!(
            "redis, {how:?}: {waited} reads waited without a recording; with it {}, for {demanded} requests ({} of replay)",
            second["waited"], before
        );
        // What it reads is never quite the same: pages are read ahead by the order of threads.
        assert!(second["waited"].as_u64().unwrap() * 4 <= waited, "{second}");
        let bytes = |recording: &serde_json::Value| -> u64 {
            let reads = recording["reads"].as_array().unwrap();
            reads.iter().map(|read| read[3].as_u64().unwrap()).sum()
        };
        assert!(bytes(&second) * 10 >= bytes(&first) * 9, "the replay made the recording poorer");
        remove(&node, how, &reference);
        std::fs::remove_dir_all(node.daemon.root().join("recordings")).unwrap();
        node.restart(Signal::TERM);
    }
}

/// Between the pull and the program's first instruction everything that it needs has come.
#[test]
fn a_start_that_was_never_seen_is_foreseen() {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let workload = workloads.named("redis");
    let reference = workload.push(&registry);
    index(&reference, ALL);
    let waited = |forecast: bool| -> Option<u64> {
        let node = if forecast {
            Node::with(&CONFIG.replace("forecast = false\n", ""))?
        } else {
            Node::with(CONFIG)?
        };
        node.pull(Pull::Soci, &reference);
        if forecast {
            // Otherwise it and the program race for the processors, which other tests use, too.
            eventually("the start is foreseen", PATIENCE, || match node.daemon.logged("msg", FORESEEN) {
                0 => Err("it is still being fetched".into()),
                _ => Ok(()),
            });
        }
        run(&node, Pull::Soci, &reference, workload);
        recorded(&node, None)["waited"].as_u64()
    };
    let Some(blind) = waited(false) else { return };
    let Some(foreseen) = waited(true) else { return };
    println!("redis: {blind} reads waited without a forecast, {foreseen} with it");
    assert!(foreseen * 4 <= blind, "{foreseen} of {blind}");
}

#[test]
fn a_recording_that_was_pushed_helps_another_node() {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let how = Pull::Soci;
    let workload = workloads.named("redis");
    let reference = workload.push(&registry);
    index(&reference, ALL);

    let Some(one) = Node::with(CONFIG) else { return };
    let root = one.daemon.root().display().to_string();
    let record = ["prefetch", "record", "--snapshotter-root", &root, &reference];
    one.pull(how, &reference);
    let early = soci(&one, &record);
    assert!(
        !early.status.success() && said(&early).contains("run the image there first"),
        "{}",
        said(&early)
    );
    let nothing = soci(&one, &["prefetch", "push", &reference]);
    assert!(
        !nothing.status.success() && said(&nothing).contains("soci prefetch record"),
        "{}",
        said(&nothing)
    );
    run(&one, how, &reference, workload);
    let first = recorded(&one, None);
    let told = ok(&one, &record);
    assert!(told.starts_with("soci index sha256:") && told.contains("are prefetched"), "{told}");
    let digest = ok(&one, &[&record[..], &["--quiet"]].concat());
    assert!(ok(&one, &["prefetch", "list"]).lines().count() > 1);
    ok(&one, &["prefetch", "push", &reference]);

    // Without recordings of its own, and with one more thing to choose from in the registry.
    let Some(two) = Node::with(CONFIG) else { return };
    two.pull(how, &reference);
    assert_eq!(image(&two, &reference)["index"], digest.trim());
    let prefetch = prefetched(&two, &reference);
    assert_eq!((&prefetch["source"], &prefetch["failed"]), (&"artifacts".into(), &0.into()));
    run(&two, how, &reference, workload);
    let second = recorded(&two, None);
    println!("redis: {} reads waited on the first node, {} on the second", first["waited"], second["waited"]);
    assert!(second["waited"].as_u64().unwrap() * 4 <= first["waited"].as_u64().unwrap(), "{second}");

    let Some(three) = Node::with(NEITHER) else { return };
    three.pull(how, &reference);
    run(&three, how, &reference, workload);
    let third = recorded(&three, None);
    assert!(image(&three, &reference)["prefetch"].is_null());
    assert!(third["waited"].as_u64().unwrap() * 2 > first["waited"].as_u64().unwrap(), "{third}");
}

#[test]
fn a_converted_image_is_converted_again_with_the_recording() {
    let Some(workloads) = Workloads::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = Node::with(CONFIG) else { return };
    let how = Pull::Soci;
    let workload = workloads.named("redis");
    let original = workload.push(&registry);
    let converted = format!("{}/redis:soci", registry.host());
    let convert = |more: &[&str]| {
        let arguments = ["--content-store=soci", "convert", "--min-layer-size=0"];
        ok(&node, &[&arguments[..], more, &[&format!("docker://{original}"), &converted]].concat())
    };
    convert(&[]);
    node.pull(how, &converted);
    run(&node, how, &converted, workload);
    let first = recorded(&node, None);
    let root = node.daemon.root().display().to_string();
    let refused = soci(&node, &["prefetch", "record", "--snapshotter-root", &root, &converted]);
    let said = said(&refused);
    assert!(!refused.status.success() && said.contains("--prefetch-recording"), "{said}");
    let file = said.split_whitespace().find(|word| word.contains("/recordings/")).unwrap();
    let file = file.trim_end_matches(|end: char| !end.is_alphanumeric()).to_owned();
    convert(&["--prefetch-recording", &file]);

    let Some(other) = Node::with(CONFIG) else { return };
    other.pull(how, &converted);
    let prefetch = prefetched(&other, &converted);
    assert_eq!(prefetch["source"], "artifacts");
    run(&other, how, &converted, workload);
    let second = recorded(&other, None);
    assert!(second["waited"].as_u64().unwrap() * 4 <= first["waited"].as_u64().unwrap(), "{second}");
}

/// Pages that a recording names: layer, entry and number.
fn pages(recording: &serde_json::Value) -> HashSet<(String, u64, u64)> {
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let reads = recording["reads"].as_array().unwrap().iter();
    let pages = reads.flat_map(|read| {
        let layer = recording["layers"][number(&read[0]) as usize]["layer"].as_str().unwrap().to_owned();
        let (entry, start, length) = (number(&read[1]), number(&read[2]), number(&read[3]));
        (start / 4096..(start + length).div_ceil(4096)).map(move |page| (layer.clone(), entry, page))
    });
    pages.collect()
}

/// The recording of one of several images.
fn recorded_of(node: &Node, reference: &str) -> serde_json::Value {
    let find = || -> Option<serde_json::Value> {
        let files = std::fs::read_dir(node.daemon.root().join("recordings")).unwrap();
        let mut recordings = files.filter_map(|file| {
            let path = file.unwrap().path();
            let is_one = path.extension().is_some_and(|extension| extension == "json");
            is_one
                .then(|| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap())
        });
        recordings.find(|recording| recording["image"] == reference)
    };
    eventually("the start is recorded", PATIENCE, || find().map(drop).ok_or("nothing yet".to_owned()));
    find().unwrap()
}

/// A container of another image goes through the files of the base, again and again, with the same programs; and a process of the
/// host does so in the container's own tree. How much the kernel reads around a page of a library depends on what is there.
#[test]
fn a_recording_beside_a_busy_neighbour_equals_the_one_made_alone() {
    let registry = TestRegistry::builder().start_blocking();
    let mut shell = HostFiles::new();
    shell.binary("/bin/sh").binary("/bin/cat").binary("/bin/sleep").binary("/bin/echo");
    let shell = shell.layer(Compression::GZIP);
    let mut base = LayerBuilder::new(Compression::GZIP);
    for number in 0..200 {
        base.add(Entry::made(format!("data/{number}"), Texture::Random, number, 100_000));
    }
    let base = base.finish();
    let push = |name: &str, script: &str| {
        let mut own = LayerBuilder::new(Compression::GZIP);
        own.add(Entry::made("own", Texture::Random, 1000, 500_000)).add(Entry::file("name", name));
        let image = ImageBuilder::new().layer(shell.clone()).layer(base.clone()).layer(own.finish());
        image.cmd(&["/bin/sh", "-c", script]).build().put_into(&registry, name, "1");
        let reference = format!("{}/{name}:1", registry.host());
        index(&reference, ALL);
        reference
    };
    let read: Vec<_> = (0..100).map(|number| format!("/data/{}", number * 2)).collect();
    let start = format!("cat /own {} >/dev/null; echo ready; exec sleep 1000", read.join(" "));
    let reference = push("start", &start);
    let busy = push("busy", "echo ready; while :; do cat /data/* >/dev/null; done");

    let Some(alone) = Node::with(CONFIG) else { return };
    let how = Pull::Soci;
    alone.pull(how, &reference);
    let mut container = Container::run(&alone, how.namespace(), &reference);
    container.wait_for("ready", PATIENCE);
    let expected = pages(&recorded_of(&alone, &reference));
    assert!(expected.len() > (100 * 100_000 + 500_000) / 4096);
    drop(container);

    let Some(beside) = Node::with(CONFIG) else { return };
    beside.pull(how, &busy);
    beside.pull(how, &reference);
    let mut neighbour = Container::run(&beside, how.namespace(), &busy);
    neighbour.wait_for("ready", PATIENCE);
    let mut container = Container::run(&beside, how.namespace(), &reference);
    container.wait_for("ready", PATIENCE);
    let root = PathBuf::from(format!("/proc/{}/root", container.pid()));
    for number in 0..200 {
        std::fs::read(root.join(format!("data/{number}"))).unwrap();
    }
    let recording = recorded_of(&beside, &reference);
    let found = pages(&recording);
    let (lacking, foreign) = (expected.difference(&found).count(), found.difference(&expected).count());
    println!(
        "{} pages alone; beside a neighbour {lacking} are lacking, and {foreign} are foreign",
        expected.len()
    );
    assert!(
        (lacking + foreign) * 20 <= expected.len(),
        "{lacking} lacking, {foreign} foreign of {}",
        expected.len()
    );
    assert_eq!(recording["cold"], true);
}
