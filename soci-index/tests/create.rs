//! `soci create`: sources, platforms, rules, errors.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use common::{Soci, after};
use testdata::golden;
use testdata::image::{
    Compression, Entry, Image, ImageBuilder, IndexBuilder, LayerBuilder, MediaTypes, Texture,
};
use testdata::registry::TestRegistry;

fn layer(seed: u64, compression: Compression) -> testdata::image::Layer {
    let mut layer = LayerBuilder::new(compression);
    layer.add(Entry::dir("data"));
    layer.add(Entry::file("data/small", format!("small {seed}\n")));
    layer.add(Entry::symlink("data/link", "small"));
    layer.add(Entry::hard_link("data/hard", "data/small"));
    layer.add(Entry::symlink("data/loop", "loop"));
    layer.add(Entry::made("data/big", Texture::Text, seed, 300_000));
    layer.finish()
}

fn image() -> Image {
    ImageBuilder::new().layer(layer(1, Compression::GZIP)).layer(layer(2, Compression::None)).build()
}

const ALL: [&str; 3] = ["create", "--min-layer-size=0", "--platform=linux/amd64"];

fn create(soci: &Soci, more: &[&str]) -> String {
    soci.ok(&[&ALL, more].concat())
}

/// All sources of one image give one index.
#[test]
fn registry_layout_and_archive_give_the_same_index() {
    let image = image();
    let soci = Soci::new();
    let registry = TestRegistry::builder().start_blocking();
    image.put_into(&registry, "app", "v1");
    image.write_layout(soci.dir().join("layout"), "v1");
    image.write_archive(soci.dir().join("app.tar"), "v1");
    let reference = format!("{}/app:v1", registry.host());
    let mut digests = Vec::new();
    for source in [
        reference.clone(),
        format!("docker://{reference}"),
        format!("{}/app@{}", registry.host(), image.digest()),
        "oci:layout".to_owned(),
        "oci:layout:v1".to_owned(),
        "oci:layout:@0".to_owned(),
        "oci-archive:app.tar".to_owned(),
        "oci-archive:app.tar:v1".to_owned(),
    ] {
        let stdout = create(&soci, &["--quiet", "--force", &source]);
        digests.push(stdout.trim().to_owned());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    // Layers come in one request each, whole, and are not stored.
    let listed = soci.ok(&["index", "list"]);
    assert!(listed.contains(&reference), "{listed}");
    assert!(listed.contains(&format!("oci-archive:{}/app.tar:v1", soci.dir().display())), "{listed}");
    let stored = std::fs::read_dir(soci.root().join("content/blobs/sha256")).unwrap().count();
    assert_eq!(stored, 4, "two zTOCs, the config, the index");
}

#[test]
fn each_layer_is_read_once() {
    let image = image();
    let soci = Soci::new();
    let registry = TestRegistry::builder().start_blocking();
    image.put_into(&registry, "app", "v1");
    create(&soci, &[&format!("{}/app:v1", registry.host())]);
    for layer in image.layers() {
        let requests = registry.requests();
        let reads: Vec<_> = requests.iter().filter(|request| request.path.contains(&layer.digest)).collect();
        assert_eq!(reads.len(), 1, "{reads:?}");
    }
}

#[test]
fn small_and_unsupported_layers_are_skipped_with_the_references_words() {
    let soci = Soci::new();
    let (gzip, plain) = (layer(1, Compression::GZIP), layer(2, Compression::None));
    let other = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    ImageBuilder::new()
        .layer(gzip.clone())
        .layer_as(plain.clone(), other)
        .layer(layer(3, Compression::None))
        .build()
        .write_layout(soci.dir().join("layout"), "v1");
    let min = (gzip.size + 1).to_string();
    let stdout = soci.ok(&["create", "--min-layer-size", &min, "--platform=linux/amd64", "oci:layout"]);
    let gzip_line = format!(
        "ztoc skipped - layer {} (application/vnd.oci.image.layer.v1.tar+gzip) size {} is less than min-layer-size {min}",
        gzip.digest, gzip.size
    );
    let other_line = format!(
        "ztoc skipped - layer {} ({other}) is compressed in an unsupported format. expect: [tar, gzip, unknown] but got \"\"",
        plain.digest
    );
    for line in [gzip_line, other_line] {
        assert!(stdout.lines().any(|found| found == line), "no line {line:?} in\n{stdout}");
    }
    let stderr = soci.err(&["create", "--platform=linux/amd64", "oci:layout"]);
    assert!(stderr.contains("no ztocs created") && stderr.contains("--min-layer-size"), "{stderr}");
}

#[test]
fn docker_tar_that_is_really_gzip_is_recognised() {
    let soci = Soci::new();
    let gzip = layer(1, Compression::GZIP);
    ImageBuilder::new()
        .layer_as(gzip, "application/vnd.docker.image.rootfs.diff.tar")
        .media_types(MediaTypes::Docker)
        .build()
        .write_layout(soci.dir().join("layout"), "v1");
    create(&soci, &["oci:layout"]);
}

#[test]
fn what_is_no_layer_fails_the_build() {
    let soci = Soci::new();
    ImageBuilder::new()
        .layer_as(layer(1, Compression::GZIP), "application/vnd.in-toto+json")
        .build()
        .write_layout(soci.dir().join("layout"), "v1");
    let stderr = soci.err(&[&ALL[..], &["oci:layout"]].concat());
    assert!(stderr.contains("not a layer mediaType: application/vnd.in-toto+json"), "{stderr}");
}

#[test]
fn ztocs_are_used_again_unless_forced_or_gone() {
    let soci = Soci::new();
    let image = image();
    image.write_layout(soci.dir().join("layout"), "v1");
    let first = create(&soci, &["oci:layout"]);
    let ztocs = after(&first, "layer ");
    assert_eq!(ztocs.len(), 2);
    let again = create(&soci, &["oci:layout"]);
    assert_eq!(again.matches("(already exists)").count(), 2, "{again}");
    assert_eq!(create(&soci, &["--force", "oci:layout"]).matches("(already exists)").count(), 0);
    assert_eq!(create(&soci, &["--span-size=65536", "oci:layout"]).matches("(already exists)").count(), 0);
    // Damaged in the store: built again.
    let (_, ztoc) = ztocs[0].split_once(" -> ztoc ").unwrap();
    let path = soci.root().join("content/blobs/sha256").join(&ztoc[7..]);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"damaged").unwrap();
    assert_eq!(create(&soci, &["oci:layout"]).matches("(already exists)").count(), 1);
    assert_ne!(std::fs::read(&path).unwrap(), b"damaged");
}

#[test]
fn platforms_are_chosen() {
    let soci = Soci::new();
    let amd64 = ImageBuilder::new().layer(layer(1, Compression::GZIP)).build();
    let arm64 = ImageBuilder::new().platform("linux/arm64/v8").layer(layer(2, Compression::GZIP)).build();
    let unknown = ImageBuilder::new()
        .platform("unknown/unknown")
        .layer_as(layer(3, Compression::None), "application/vnd.in-toto+json")
        .build();
    let index = IndexBuilder::new().image(&amd64).image(&arm64).image(&unknown).build();
    // Indexes may be nested.
    let outer = IndexBuilder::new().index(&index).build();
    outer.write_layout(soci.dir().join("layout"), "v1");
    let platforms = |args: &[&str]| -> Vec<String> {
        let json = soci.ok(&[&["create", "--min-layer-size=0", "--json"], args, &["oci:layout"]].concat());
        let made: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        made.iter().map(|index| index["platform"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(platforms(&["--all-platforms"]), ["linux/amd64", "linux/arm64"]);
    assert_eq!(platforms(&["-p", "linux/aarch64"]), ["linux/arm64"]);
    assert_eq!(platforms(&["-p", "linux/arm64,linux/amd64"]), ["linux/arm64", "linux/amd64"]);
    assert_eq!(platforms(&["-p", "linux/x86_64", "--platform", "linux/amd64"]), ["linux/amd64"]);
    let stderr = soci.err(&["create", "-p", "linux/s390x", "oci:layout"]);
    assert!(
        stderr.contains("no image for platform linux/s390x; the image has: linux/amd64, linux/arm64"),
        "{stderr}"
    );
    assert_eq!(soci.run(&["create", "-p", "nonsense", "oci:layout"]).code(), Some(2));
    let listed = soci.ok(&["index", "ls", "-q", "--platform", "linux/arm64"]);
    assert_eq!(listed.lines().count(), 1);
}

#[test]
fn indexes_nested_too_deeply_are_refused() {
    let soci = Soci::new();
    let mut index = IndexBuilder::new().image(&image()).build();
    for _ in 0..5 {
        index = IndexBuilder::new().index(&index).build();
    }
    index.write_layout(soci.dir().join("layout"), "v1");
    let stderr = soci.err(&["create", "--all-platforms", "oci:layout"]);
    assert!(stderr.contains("nested more than 4 deep"), "{stderr}");
}

#[test]
fn a_platform_without_index_does_not_fail_the_others() {
    let soci = Soci::new();
    let amd64 = ImageBuilder::new().layer(layer(1, Compression::GZIP)).build();
    let arm64 = ImageBuilder::new()
        .platform("linux/arm64")
        .layer_as(layer(2, Compression::None), "application/vnd.oci.image.layer.v1.tar+zstd")
        .build();
    IndexBuilder::new().image(&amd64).image(&arm64).build().write_layout(soci.dir().join("layout"), "v1");
    let run = soci.run(&["create", "--min-layer-size=0", "--all-platforms", "oci:layout"]);
    run.ok();
    assert!(run.stderr().contains("platform linux/arm64 gets no index"), "{}", run.stderr());
    assert_eq!(soci.indexes().len(), 1);
}

#[test]
fn a_source_whose_bytes_are_wrong_is_an_error() {
    let soci = Soci::new();
    let image = image();
    let layout = soci.dir().join("layout");
    image.write_layout(&layout, "v1");
    // The last bytes are the gzip trailer; a flipped bit in the middle breaks the stream itself.
    let path = layout.join("blobs/sha256").join(&image.layers()[0].digest[7..]);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let stderr = soci.err(&[&ALL[..], &["--force", "oci:layout"]].concat());
    assert!(stderr.contains("damaged"), "{stderr}");
    std::fs::write(&path, &good[1..]).unwrap();
    let stderr = soci.err(&[&ALL[..], &["--force", "oci:layout"]].concat());
    assert!(stderr.contains("corrupt") && stderr.contains(&image.layers()[0].digest), "{stderr}");
    // An uncompressed layer with other content is a perfectly good tar with the wrong digest.
    std::fs::write(&path, &good).unwrap();
    let path = layout.join("blobs/sha256").join(&image.layers()[1].digest[7..]);
    let mut other = std::fs::read(&path).unwrap();
    let text = other.windows(7).position(|window| window == b"small 2").unwrap();
    other[text] ^= 1;
    std::fs::write(&path, &other).unwrap();
    let stderr = soci.err(&[&ALL[..], &["--force", "oci:layout"]].concat());
    assert!(stderr.contains("has content with digest"), "{stderr}");
    std::fs::remove_file(&path).unwrap();
    let stderr = soci.err(&[&ALL[..], &["--force", "oci:layout"]].concat());
    assert!(stderr.contains("is not in oci:"), "{stderr}");
    assert!(soci.indexes().is_empty());
}

#[test]
fn sources_that_are_none_say_what_is_wrong() {
    let soci = Soci::new();
    let image = image();
    image.write_archive(soci.dir().join("app.tar"), "v1");
    std::fs::create_dir(soci.dir().join("empty")).unwrap();
    std::fs::write(soci.dir().join("app.tgz"), b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    let two = soci.dir().join("two");
    image.write_layout(&two, "v1");
    let mut index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(two.join("index.json")).unwrap()).unwrap();
    let mut other = index["manifests"][0].clone();
    other["digest"] = "sha256:0000000000000000000000000000000000000000000000000000000000000000".into();
    other["annotations"] = serde_json::json!({"io.containerd.image.name": "docker.io/library/x:v2"});
    index["manifests"].as_array_mut().unwrap().push(other);
    std::fs::write(two.join("index.json"), index.to_string()).unwrap();
    for (source, message) in [
        ("oci:app.tar", "oci-archive:"),
        ("oci:missing", "No such file"),
        ("oci:empty", "no oci-layout file"),
        ("oci-archive:app.tgz", "compressed with gzip"),
        ("oci-archive:empty", "not a regular file"),
        ("oci-archive:app.tar:v2", "no image is tagged v2; it has: v1"),
        ("oci:two", "2 images match, add :TAG to choose one; it has: docker.io/library/x:v2, v1"),
        ("oci:two:docker.io/library/x:v2", "is not in oci:"),
    ] {
        let stderr = soci.err(&["create", source]);
        assert!(stderr.contains(message), "{source}: {stderr}");
    }
    for source in ["docker-archive:x", "containerd:", "Not A Reference", "oci:"] {
        let run = soci.run(&["create", source]);
        assert_eq!(run.code(), Some(2), "{source}: {}", run.stderr());
    }
}

#[test]
fn hostile_layouts_are_refused() {
    let soci = Soci::new();
    let dir = soci.dir().join("layout");
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join("oci-layout"), "{}").unwrap();
    std::fs::write(soci.dir().join("secret"), "{}").unwrap();
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let zeros = "0".repeat(64);
    for (descriptor, message) in [
        (
            format!(r#"{{"mediaType":"{manifest}","digest":"sha256:../../../secret","size":2}}"#),
            "not a digest",
        ),
        (
            format!(r#"{{"mediaType":"{manifest}","digest":"sha256:{zeros}","size":9999999999}}"#),
            "more than the 4194304",
        ),
        (format!(r#"{{"mediaType":"{manifest}","digest":"sha256:{zeros}","size":-1}}"#), "index.json"),
        ("null".to_owned(), "index.json"),
    ] {
        std::fs::write(dir.join("index.json"), format!(r#"{{"manifests":[{descriptor}]}}"#)).unwrap();
        let stderr = soci.err(&["create", "oci:layout"]);
        assert!(stderr.contains(message), "{descriptor}: {stderr}");
    }
    std::fs::write(dir.join("index.json"), vec![b' '; 5 << 20]).unwrap();
    assert!(soci.err(&["create", "oci:layout"]).contains("more than the 4194304 allowed"));
}

#[test]
fn xattr_optimization_marks_layers_without_xattrs() {
    let soci = Soci::new();
    let mut with = LayerBuilder::new(Compression::GZIP);
    with.add(Entry::file("x", "x").xattr("user.k", "v"));
    let (with, without) = (with.finish(), layer(1, Compression::GZIP));
    ImageBuilder::new()
        .layer(with.clone())
        .layer(without.clone())
        .build()
        .write_layout(soci.dir().join("layout"), "v1");
    for force in [true, false] {
        let mut args = vec!["--optimizations=xattr", "--quiet", "oci:layout"];
        if force {
            args.push("--force");
        }
        let digest = create(&soci, &args);
        let index: serde_json::Value =
            serde_json::from_str(&soci.ok(&["index", "info", digest.trim()])).unwrap();
        let marks: Vec<_> = index["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["annotations"]["com.amazon.soci.disable-xattrs"].as_str())
            .collect();
        assert_eq!(marks, [None, Some("true")]);
    }
}

#[test]
fn the_command_line_is_the_references() {
    let soci = Soci::new();
    let version = soci.ok(&["--version"]);
    let mut words = version.split_whitespace();
    assert_eq!((words.next(), words.next()), (Some("soci"), Some("version")));
    assert!(words.next().unwrap().starts_with("v1."), "{version}");
    let layout = golden::image_dir("docker");
    let source = format!("oci:{}", layout.display());
    // As nerdctl calls it.
    soci.ok(&[
        "--address",
        "unix:///run/x.sock",
        "--namespace",
        "k8s.io",
        "create",
        "--min-layer-size",
        "0",
        &source,
    ]);
    soci.ok(&["-a", "/run/x", "-n", "default", "--timeout", "1m30s", "--debug", "index", "ls"]);
    for wrong in [
        &["create"][..],
        &["create", "--span-size=0", "oci:x"],
        &["create", "--span-size=-1", "oci:x"],
        &["create", "--min-layer-size=-1", "oci:x"],
        &["--timeout", "5", "index", "ls"],
        &["index", "info", "sha256:xyz"],
        &["index", "rm"],
        &["nonsense"],
    ] {
        assert_eq!(soci.run(wrong).code(), Some(2), "{wrong:?}");
    }
    assert!(soci.ok(&["create", "--help"]).contains("oci-archive:FILE[:TAG]"));
}

#[test]
fn hosts_toml_leads_to_the_registry() {
    let soci = Soci::new();
    let registry = TestRegistry::builder().start_blocking();
    image().put_into(&registry, "app", "v1");
    let hosts = soci.dir().join("certs.d/registry.test");
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), format!("server = \"{}\"\n", registry.url())).unwrap();
    // nerdctl joins its directories with commas.
    let directories = format!("{0}/nothing,{0}/certs.d", soci.dir().display());
    create(&soci, &["--push", "--hosts-dir", &directories, "registry.test/app:v1"]);
    assert_eq!(soci.indexes()[0]["image_ref"], "registry.test/app:v1");
    std::fs::write(hosts.join("hosts.toml"), "server = [").unwrap();
    let stderr = soci.err(&["create", "--hosts-dir", &directories, "registry.test/app:v1"]);
    assert!(stderr.contains("hosts.toml"), "{stderr}");
}

#[test]
fn a_timeout_ends_the_command() {
    let soci = Soci::new();
    let registry = TestRegistry::builder().latency(std::time::Duration::from_secs(5)).start_blocking();
    image().put_into(&registry, "app", "v1");
    let stderr = soci.err(&["--timeout", "100ms", "create", &format!("{}/app:v1", registry.host())]);
    assert!(stderr.contains("not finished within --timeout 100ms"), "{stderr}");
}

#[test]
fn the_references_state_is_noticed_once() {
    let soci = Soci::new();
    std::fs::create_dir_all(soci.root()).unwrap();
    std::fs::write(soci.root().join("artifacts.db"), "bolt").unwrap();
    let source = format!("oci:{}", golden::image_dir("docker").display());
    let first = soci.run(&["create", "--min-layer-size=0", &source]);
    first.ok();
    assert!(first.stderr().contains("artifacts.db"), "{}", first.stderr());
    let second = soci.run(&["create", "--min-layer-size=0", &source]);
    second.ok();
    assert_eq!(second.stderr(), "");
    assert_eq!(std::fs::read(soci.root().join("artifacts.db")).unwrap(), b"bolt");
}
