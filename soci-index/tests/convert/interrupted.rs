//! A conversion that does not end well leaves nothing that looks as if it had.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testdata::image::IndexBuilder;
use testdata::registry::{Action, Fault, TestRegistry};

use crate::common::Soci;
use crate::{CONVERT, convert, image};

fn published(registry: &TestRegistry) -> Option<Value> {
    registry.manifest("app", "soci").map(|(_, bytes)| serde_json::from_slice(&bytes).unwrap())
}

/// Whatever request fails, the name stands for what it stood for, and the next run succeeds.
#[test]
fn tags_move_last() {
    let registry = TestRegistry::builder().start_blocking();
    let index = IndexBuilder::new().image(&image(1, "linux/amd64")).image(&image(2, "linux/arm64")).build();
    index.put_into(&registry, "app", "v1");
    let (from, to) = (format!("{}/app:v1", registry.host()), format!("{}/app:soci", registry.host()));
    let counted = Soci::new();
    convert(&counted, &[&CONVERT[..], &[&from, &to]].concat());
    let writes = |registry: &TestRegistry| {
        registry.requests().iter().filter(|request| request.method == "PUT").count()
    };
    let (all, expected) = (writes(&registry), published(&registry).unwrap());

    for fails in 0..all {
        let registry = TestRegistry::builder().start_blocking();
        index.put_into(&registry, "app", "v1");
        let (from, to) = (format!("{}/app:v1", registry.host()), format!("{}/app:soci", registry.host()));
        registry.inject(
            Fault::always(Action::Status(403, Vec::new(), Default::default())).method("PUT").after(fails),
        );
        let soci = Soci::new();
        soci.err(&[&CONVERT[..], &[&from, &to]].concat());
        assert_eq!(published(&registry), None, "after {fails} writes");
        assert!(soci.indexes().is_empty(), "the store says that there is a converted image");
        registry.clear_faults();
        convert(&soci, &[&CONVERT[..], &[&from, &to]].concat());
        assert_eq!(published(&registry).as_ref(), Some(&expected));
    }
}

/// The same for a process that is killed while a layout or an archive is being written.
#[test]
fn killed_runs_leave_no_half_written_image() {
    let registry = TestRegistry::builder().bandwidth(400_000).start_blocking();
    let soci = Soci::new();
    image(1, "linux/amd64").put_into(&registry, "app", "v1");
    let from = format!("{}/app:v1", registry.host());
    for (to, result) in [("oci:made:soci", "made/index.json"), ("oci-archive:made.tar", "made.tar")] {
        for wait in [50, 400, 900] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_soci"))
                .args(["--root", "root", "--content-store=soci"])
                .args(CONVERT)
                .args(["--force", &from, to])
                .current_dir(soci.dir())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(wait));
            let _ = child.kill();
            let ended = child.wait().unwrap();
            if !ended.success() {
                assert!(!soci.dir().join(result).exists(), "{to} after {wait} ms");
            }
        }
        convert(&soci, &[&CONVERT[..], &[&from, to]].concat());
    }
}
