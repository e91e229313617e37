//! `src/generated` is what the definitions in `proto/` say. `UPDATE_GENERATED=1 cargo test -p containerd-api` writes it.
#![expect(clippy::unwrap_used, reason = "a broken fixture must stop the test")]

use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn the_generated_code_is_that_of_the_definitions() {
    let made = tempfile::tempdir().unwrap();
    let files =
        ["types", "snapshots", "content", "images", "leases", "diff", "introspection", "version", "cri"]
            .map(|name| format!("{name}.proto"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(files, [root.join("proto")]).unwrap();
    tonic_prost_build::configure()
        .out_dir(made.path())
        // They hold passwords, which must not get into a log.
        .skip_debug(["runtime.v1.AuthConfig", "runtime.v1.PullImageRequest"])
        .compile_fds(descriptors)
        .unwrap();
    let generated = root.join("src/generated");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        for (name, text) in contents(made.path()) {
            std::fs::write(generated.join(name), text).unwrap();
        }
    }
    let (made, kept) = (contents(made.path()), contents(&generated));
    assert!(
        made == kept,
        "src/generated is not up to date: run UPDATE_GENERATED=1 cargo test -p containerd-api"
    );
}

/// The files of a directory, by their names.
fn contents(directory: &Path) -> BTreeMap<String, String> {
    let files = directory.read_dir().unwrap().map(|file| file.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap()))
        .collect()
}
