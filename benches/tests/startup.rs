//! The start-up benchmark works: a tiny image, every variant, once.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that meets something unexpected stops there"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Whether the benchmark has said aloud that this machine lacks something. In CI it fails instead.
fn skipped(said: &str) -> bool {
    let skipped = said.contains("*** SKIPPED");
    if skipped {
        eprintln!("{said}");
    }
    skipped
}

fn startup(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_startup"));
    command.args(["--smoke", "--json", "--directory"]).arg(directory).arg("--out").arg(directory.join("out"));
    command
}

/// What a run of a process must not leave: interfaces, and directories of the registry.
fn leaves_nothing(process: u32, directory: &Path) {
    let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap();
    assert!(!interfaces.contains(&format!("soci{process:x}")), "{interfaces}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("/cd-{process}-")), "{mounts}");
    let left: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "out"), "{left:?}");
}

#[test]
fn a_tiny_image_is_started_in_every_way() {
    let directory = tempfile::tempdir().unwrap();
    let child = startup(directory.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if skipped(&said) {
        return;
    }
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let written = std::fs::read(directory.path().join("out/results.json")).unwrap();
    assert_eq!(report, serde_json::from_slice::<serde_json::Value>(&written).unwrap());

    let link = &report["links"][0];
    assert_eq!(link["profile"], "10ms/1gbit");
    assert!(link["measured"]["connect_ms"].as_f64().unwrap() >= 10.0, "{link}");
    let touched = &report["images"][0]["local"]["touched"];
    let (size, read) = (&report["images"][0]["size"], &touched["span_bytes"]);
    // The ballast is not read.
    assert!((1..size.as_u64().unwrap() / 4).contains(&read.as_u64().unwrap()), "{read} of {size}");
    assert!(touched["bytes"].as_u64() > Some(0) && touched["spans"].as_u64() > Some(0), "{touched}");

    let [group] = &report["results"].as_array().unwrap()[..] else { panic!("{report:#}") };
    let floor = group["floor"]["total"].as_f64().unwrap();
    // Three round trips, and those of the empty pull.
    assert!(floor > 0.04, "{floor}");
    let names: Vec<_> = group["variants"].as_array().unwrap().iter().map(|v| v["variant"].clone()).collect();
    assert_eq!(names, ["lazy", "recorded", "eager", "overlayfs"]);
    for variant in group["variants"].as_array().unwrap() {
        let sample = &variant["samples"][0];
        let number = |field: &str| sample[field].as_f64().unwrap();
        assert!(number("pull") > 0.02 && number("run") > 0.0, "{variant:#}");
        assert!(number("total") >= number("pull"), "{variant:#}");
        assert!(number("requests") >= 3.0 && number("requests") >= number("pull_requests"), "{variant:#}");
        assert!(number("bytes") > 1e4 && number("bytes_sent") > 100.0 && number("cpu") > 0.0, "{variant:#}");
        let whole = number("bytes") >= size.as_f64().unwrap();
        assert!(whole || variant["variant"] == "lazy" || variant["variant"] == "recorded", "{variant:#}");
        assert!(number("containerd_memory") > 1e6, "{variant:#}");
        assert_eq!(number("snapshotter_memory") > 1e6, variant["variant"] != "overlayfs", "{variant:#}");
    }
    let out = directory.path().join("out");
    let chart = std::fs::read_to_string(out.join("chart.svg")).unwrap();
    assert!(chart.starts_with("<svg ") && chart.trim_end().ends_with("</svg>"), "{chart}");
    assert!(chart.contains("smoke overlayfs"), "{chart}");
    let table = std::fs::read_to_string(out.join("table.txt")).unwrap();
    assert!(table.contains("(floor)"), "{table}");
    leaves_nothing(process, directory.path());
}

#[test]
fn interrupted_it_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = startup(directory.path()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    // The last line before containers run.
    while !said.contains("the floor") && output.read_line(&mut said).unwrap() > 0 {}
    if skipped(&said) {
        child.wait().unwrap();
        return;
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    leaves_nothing(child.id(), directory.path());
}
