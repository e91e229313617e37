//! Flags of the reference that nerdctl and scripts pass: each has to be understood, where it stands.

mod common;

use common::Soci;

/// Usage errors have exit status 2; that the image is not there has 1.
fn understands(args: &[&str]) {
    let soci = Soci::new();
    let run = soci.run(args);
    assert_eq!(run.code(), Some(1), "{args:?}\n{}", run.stderr());
}

const BUILD: [&[&str]; 12] = [
    &["--all-platforms"],
    &["--platform", "linux/amd64,linux/arm64"],
    &["-p", "linux/amd64", "-p", "linux/arm64/v8"],
    &["--span-size", "1048576"],
    &["--min-layer-size", "0"],
    &["--optimizations", "xattr"],
    &["--force"],
    &["-f"],
    &["--prefetch-file", "/bin/sh,/etc/passwd"],
    &["--prefetch-file", "/bin/sh", "--prefetch-file", "etc/passwd"],
    &["--max-memory", "1000000"],
    &["--quiet"],
];

#[test]
fn create_and_convert() {
    for flags in BUILD {
        understands(&[&["create"], flags, &["oci:missing"]].concat());
        understands(&[&["convert"], flags, &["oci:missing", "oci:out:v1"]].concat());
    }
    understands(&["convert", "--standalone", "--format", "oci-archive", "missing", "out"]);
    understands(&["convert", "--standalone", "--format=oci-dir", "missing", "out"]);
}

#[test]
fn push() {
    for flags in [
        &["--skip-verify"][..],
        &["-k"],
        &["--plain-http"],
        &["--user", "me:secret"],
        &["-u", "me:secret"],
        &["--refresh", "token"],
        &["--hosts-dir", "/etc/containerd/certs.d,/etc/docker/certs.d"],
        &["--tlscacert", "ca.pem"],
        &["--tlscert", "cert.pem", "--tlskey", "key.pem"],
        &["--http-dump"],
        &["--http-trace"],
        &["--snapshotter", "soci"],
        &["--all-platforms"],
        &["--platform", "linux/amd64,linux/arm64"],
        &["-p", "linux/amd64"],
        &["--existing-index", "warn"],
        &["--existing-index", "skip"],
        &["--existing-index", "allow"],
        &["--max-concurrent-uploads", "5"],
        &["--quiet"],
        &["-q"],
    ] {
        // A source that is no registry is refused after the flags were read.
        understands(&[&["push"], flags, &["oci:layout"]].concat());
    }
}

#[test]
fn global_flags_before_the_command() {
    for flags in [
        &["--address", "/nowhere.sock"][..],
        &["-a", "unix:///nowhere.sock"],
        &["--namespace", "k8s.io"],
        &["-n", "moby"],
        &["--timeout", "1m30s"],
        &["--debug"],
    ] {
        understands(&[flags, &["create", "oci:missing"]].concat());
    }
    // As nerdctl has it.
    let globals = ["--address", "/nowhere.sock", "--namespace", "default"];
    understands(
        &[&globals[..], &["push", "--skip-verify", "--plain-http", "--hosts-dir", "/a,/b", "oci:x"]].concat(),
    );
    understands(
        &[&globals[..], &["convert", "--all-platforms", "--span-size", "4194304", "oci:a", "oci:b:c"]]
            .concat(),
    );
}

#[test]
fn lists_and_details() {
    let soci = Soci::new();
    for args in [
        &["index", "list"][..],
        &["index", "ls", "--ref", "x", "-q", "-p", "linux/amd64"],
        &["index", "ls", "--quiet", "--platform", "linux/amd64"],
        &["ztoc", "list", "--quiet"],
        &["ztoc", "ls", "-q", "--ztoc-digest", &format!("sha256:{}", "0".repeat(64))],
        &["prefetch", "list", "--json"],
        &["rebuild-db"],
    ] {
        soci.ok(args);
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    for args in [
        &["index", "info", &digest][..],
        &["index", "rm", &digest, &digest],
        &["index", "remove", "--ref", "x"],
        &["ztoc", "ls", "--image-ref", "x"],
        &["ztoc", "info", &digest],
        &["ztoc", "get-file", "--output", "out", &digest, "etc/passwd"],
        &["ztoc", "get-file", "-o", "out", &digest, "etc/passwd"],
        &["prefetch", "info", "--json", &digest],
    ] {
        understands(args);
    }
}
