//! The code of the control service is what `proto/control.proto` says. `UPDATE_GENERATED=1 cargo test -p fuse-snapshotter
//! --test generated` writes it.
#![expect(clippy::unwrap_used, reason = "a broken fixture must stop the test")]

use std::path::Path;

#[test]
fn the_generated_code_is_that_of_the_definition() {
    let made = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["control.proto"], [root.join("proto")]).unwrap();
    tonic_prost_build::configure().out_dir(made.path()).compile_fds(descriptors).unwrap();
    let made = std::fs::read_to_string(made.path().join("soci.control.v1.rs")).unwrap();
    let kept = root.join("src/daemon/grpc/generated/soci.control.v1.rs");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&kept, &made).unwrap();
    }
    let kept = std::fs::read_to_string(kept).unwrap();
    assert!(
        made == kept,
        "not up to date: run UPDATE_GENERATED=1 cargo test -p fuse-snapshotter --test generated"
    );
}
