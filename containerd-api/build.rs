//! Compiles the message definitions, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files =
        ["types", "snapshots", "content", "images", "leases", "diff", "introspection", "version", "cri"]
            .map(|name| format!("{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // They hold passwords, which must not get into a log.
        .skip_debug(["runtime.v1.AuthConfig", "runtime.v1.PullImageRequest"])
        .compile_fds(descriptors)?;
    Ok(())
}
