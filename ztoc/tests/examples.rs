//! The examples do what their documentation says, on golden layers.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

#[path = "../examples/build.rs"]
#[expect(dead_code, reason = "an example has a `main` that tests do not call")]
mod build;
#[path = "../examples/list.rs"]
#[expect(dead_code, reason = "an example has a `main` that tests do not call")]
mod list;
#[path = "../examples/read_file.rs"]
#[expect(dead_code, reason = "an example has a `main` that tests do not call")]
mod read_file;

use std::io::Read;

fn layer(name: &str) -> String {
    format!("{}/../testdata/golden/layers/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn arguments<const N: usize>(arguments: [&str; N]) -> [String; N] {
    arguments.map(str::to_owned)
}

#[test]
fn a_file_is_read_with_the_ztoc_that_was_built_and_listed() {
    let ztoc = std::env::temp_dir().join(format!("ztoc-examples-{}", std::process::id()));
    let (layer, ztoc) = (layer("default-span.tar.gz"), ztoc.to_str().unwrap());

    let mut built = Vec::new();
    build::run(&arguments([&layer, ztoc]), &mut built).unwrap();
    let built = String::from_utf8(built).unwrap();
    assert!(built.contains("entries, ") && built.contains(&sha256(ztoc)), "{built}");

    let mut listed = Vec::new();
    list::run(&arguments([ztoc]), &mut listed).unwrap();
    let listed = String::from_utf8(listed).unwrap();
    let file = listed.lines().filter(|line| line.starts_with("reg")).max_by_key(|line| size(line)).unwrap();
    let name = file.split_ascii_whitespace().last().unwrap();

    let mut content = Vec::new();
    read_file::run(&arguments([&layer, ztoc, name]), &mut content).unwrap();
    let _ = std::fs::remove_file(ztoc);
    assert_eq!(content.len() as u64, size(file));
    let mut archive = Vec::new();
    flate2::read::MultiGzDecoder::new(&std::fs::read(&layer).unwrap()[..]).read_to_end(&mut archive).unwrap();
    assert!(archive.windows(content.len()).step_by(512).any(|window| window == content), "{name}");
}

/// The second column of a listed entry.
fn size(line: &str) -> u64 {
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn sha256(path: &str) -> String {
    ztoc::Sha256Digest::of(&std::fs::read(path).unwrap()).to_string()
}

#[test]
fn an_example_that_is_called_wrongly_says_how() {
    let out = &mut Vec::new();
    assert!(build::run(&[], out).unwrap_err().to_string().contains("usage: build LAYER ZTOC"));
    assert!(list::run(&[], out).unwrap_err().to_string().contains("usage: list ZTOC"));
    assert!(read_file::run(&[], out).unwrap_err().to_string().contains("usage: read_file LAYER ZTOC NAME"));
    assert!(out.is_empty());
}
