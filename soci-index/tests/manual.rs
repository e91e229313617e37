//! Completions and man pages of `soci`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use std::path::Path;
use std::process::Command;

use testdata::manual::{check_completions, check_pages};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_soci"))
}

#[test]
fn completions_have_every_command_and_flag() {
    check_completions(program());
}

#[test]
fn every_command_has_a_page_that_renders() {
    let directory = tempfile::tempdir().unwrap();
    check_pages(program(), 1, &directory.path().join("new/man"));
}

#[test]
fn a_directory_that_cannot_be_made_is_said() {
    let output = Command::new(program()).args(["man", "--dir", "/dev/null/man"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("soci: cannot write /dev/null/man: Not a directory"), "{error}");
}
