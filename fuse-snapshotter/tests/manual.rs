//! Completions and man pages of `soci-snapshotter-grpc`, and what is packed for a release.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use testdata::manual::{check_completions, check_pages};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_soci-snapshotter-grpc"))
}

#[test]
fn completions_have_every_command_and_flag() {
    check_completions(program());
}

#[test]
fn every_command_has_a_page_that_renders() {
    let directory = tempfile::tempdir().unwrap();
    check_pages(program(), 8, &directory.path().join("new/man"));
}

#[test]
fn hidden_commands_are_not_offered() {
    let output = Command::new(program()).args(["completion", "bash"]).output().unwrap();
    let script = String::from_utf8(output.stdout).unwrap();
    assert!(script.contains("completion") && !script.contains("hold-user-namespace"));
}

#[test]
fn an_archive_of_a_release_has_all_that_belongs_to_it() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/release");
    // `soci` is built by the time that all tests run; where it is not, this program's own manual stands in for it.
    let soci = Some(program().with_file_name("soci")).filter(|path| path.exists());
    let output = Command::new(script)
        .arg("--check")
        .args([soci.as_deref().unwrap_or(program()), program()])
        .env("SOURCE_DATE_EPOCH", "86400")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).unwrap();
    let root = format!("soci-{}-linux-check/", env!("CARGO_PKG_VERSION"));
    let mut names = Vec::new();
    for line in listing.lines() {
        let [mode, owner, _, date, time, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            unreachable!("{line}")
        };
        assert_eq!((owner, date, time), ("0/0", "1970-01-02", "00:00"), "{line}");
        let name = name.strip_prefix(&root).unwrap();
        let expected = match name {
            _ if name.is_empty() || name.ends_with('/') => "drwxr-xr-x",
            _ if name.starts_with("bin/") => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, expected, "{line}");
        names.push(name);
    }
    assert!(names.is_sorted(), "{names:?}");
    for name in [
        "LICENSE",
        "README.md",
        "bin/soci",
        "bin/soci-snapshotter-grpc",
        "completions/_soci",
        "completions/soci-snapshotter-grpc.fish",
        "completions/soci-snapshotter-grpc",
        "docs/install.md",
        "etc/soci-snapshotter-grpc/config.toml",
        "man/man8/soci-snapshotter-grpc.8",
        "systemd/soci-snapshotter.service",
        "systemd/soci-snapshotter.socket",
    ] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    assert!(soci.is_none() || names.contains(&"man/man1/soci-create.1"), "{names:?}");
}
