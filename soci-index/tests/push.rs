//! `soci push` and `soci create --push`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use common::{Soci, after};
use registry::{Client, ClientConfig, Reference};
use soci_index::discover;
use soci_index::oci::ImageManifest;
use testdata::docker_registry::DockerRegistry;
use testdata::golden;
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::{Auth, TestRegistry};

fn image(seed: u64) -> Image {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::made("big", Texture::Text, seed, 200_000));
    let mut second = LayerBuilder::new(Compression::None);
    second.add(Entry::file("hello", "hello\n"));
    ImageBuilder::new().layer(layer.finish()).layer(second.finish()).build()
}

const CREATE: [&str; 2] = ["create", "--min-layer-size=0"];

/// What a snapshotter would find for an image.
fn discovered(reference: &str) -> Option<discover::FoundIndex> {
    let reference: Reference = reference.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::new(ClientConfig::default()).unwrap();
        let manifest = client.manifest(&reference).await.unwrap();
        let image = ImageManifest::parse(&manifest.bytes).unwrap();
        discover::find_index(
            &client,
            reference.repository(),
            &manifest.descriptor(),
            &image,
            &discover::Wanted::default(),
            &discover::NothingNearby,
        )
        .await
        .unwrap()
    })
}

#[test]
fn create_then_push_prints_the_references_lines_and_is_found() {
    for referrers_api in [true, false] {
        let registry = TestRegistry::builder().referrers_api(referrers_api).start_blocking();
        let soci = Soci::new();
        image(1).put_into(&registry, "app", "v1");
        let reference = format!("{}/app:v1", registry.host());
        let index = soci.ok(&[&CREATE[..], &["-q", &reference]].concat()).trim().to_owned();
        let stdout = soci.ok(&["push", &reference]);
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines[0], "checking if a soci index already exists in remote repository...");
        assert_eq!(lines[1], format!("pushing soci index with digest: {index}"));
        // Two zTOCs, the config, and the index last.
        assert_eq!(after(&stdout, "pushing artifact with digest: ").len(), 4, "{stdout}");
        assert_eq!(after(&stdout, "successfully pushed artifact with digest: ").len(), 4);
        assert_eq!(*lines.last().unwrap(), format!("successfully pushed artifact with digest: {index}"));
        let found = discovered(&reference).unwrap();
        assert_eq!((found.digest.as_str(), found.covered, found.bound), (index.as_str(), 2, true));

        // Nothing is sent twice.
        registry.clear_requests();
        let again = soci.ok(&["push", "--existing-index", "allow", &reference]);
        assert_eq!(after(&again, "skipped artifact with digest: ").len(), 4, "{again}");
        assert!(
            registry.requests().iter().all(|request| request.method != "PUT" && request.method != "POST")
        );
    }
}

#[test]
fn existing_indexes_are_warned_about_skipped_or_ignored() {
    let registry = TestRegistry::builder().start_blocking();
    let soci = Soci::new();
    image(1).put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let first = soci.ok(&[&CREATE[..], &["-q", "--push", &reference]].concat()).trim().to_owned();
    let other = soci.ok(&[&CREATE[..], &["-q", "--span-size=65536", &reference]].concat()).trim().to_owned();
    let message = format!("soci index found in remote repository with digest: {first}");
    let skip = soci.ok(&["push", "--existing-index=skip", &reference]);
    assert!(skip.contains(&format!("{message}: skipping pushing artifacts")), "{skip}");
    assert_eq!(discovered(&reference).unwrap().digest.as_str(), first);
    let warn = soci.ok(&["push", &reference]);
    assert!(warn.contains(&format!("[WARN] {message}: pushing index anyway")), "{warn}");
    let many = soci.ok(&["push", &reference]);
    assert!(many.contains("[WARN] multiple soci indices found in remote repository: pushing"), "{many}");
    let allow = soci.ok(&["push", "--existing-index=allow", &reference]);
    assert!(!allow.contains("checking if"), "{allow}");
    // Both cover two layers: the lower digest is taken, by everybody.
    assert_eq!(discovered(&reference).unwrap().digest.as_str(), first.clone().min(other.clone()));
    // The newest is what `push` pushes.
    assert_eq!(soci.ok(&["push", "-q", &reference]).trim(), other);
}

#[test]
fn an_index_from_a_layout_goes_to_where_the_image_is() {
    let registry = TestRegistry::builder().start_blocking();
    let soci = Soci::new();
    let image = image(1);
    image.write_layout(soci.dir().join("layout"), "v1");
    let reference = format!("{}/app:v1", registry.host());
    let stderr = soci.err(&[&CREATE[..], &["--push", "oci:layout"]].concat());
    assert!(stderr.contains("--push-to REF"), "{stderr}");
    // The image is not there yet.
    let stderr = soci.err(&[&CREATE[..], &["--push-to", &reference, "oci:layout"]].concat());
    assert!(stderr.contains("push the image first"), "{stderr}");
    image.put_into(&registry, "app", "v1");
    let index = soci.ok(&[&CREATE[..], &["-q", "--push-to", &reference, "oci:layout"]].concat());
    assert_eq!(discovered(&reference).unwrap().digest.as_str(), index.trim());
    assert!(soci.err(&["push", "oci:layout"]).contains("reference in a registry"));
}

#[test]
fn push_without_index_says_what_to_do() {
    let registry = TestRegistry::builder().start_blocking();
    let soci = Soci::new();
    image(1).put_into(&registry, "app", "v1");
    let stderr = soci.err(&["push", &format!("{}/app:v1", registry.host())]);
    assert!(
        stderr.contains("no SOCI index for image manifest") && stderr.contains("soci create"),
        "{stderr}"
    );
}

#[test]
fn a_damaged_store_pushes_nothing_wrong() {
    let registry = TestRegistry::builder().start_blocking();
    let soci = Soci::new();
    image(1).put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let index = soci.ok(&[&CREATE[..], &["-q", &reference]].concat());
    let ztoc = soci.ok(&["ztoc", "ls", "-q"]).lines().next().unwrap().to_owned();
    let path = soci.root().join("content/blobs/sha256").join(&ztoc[7..]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let stderr = soci.err(&["push", &reference]);
    assert!(stderr.contains(&ztoc), "{stderr}");
    assert!(registry.manifest("app", index.trim()).is_none(), "the index is visible without its zTOC");
}

#[test]
fn credentials_come_from_flags_or_the_docker_configuration_and_are_never_shown() {
    let registry = TestRegistry::builder().auth(Auth::basic("me", "pa:ss")).start_blocking();
    let soci = Soci::new();
    image(1).put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let stderr = soci.err(&[&CREATE[..], &[&reference]].concat());
    assert!(stderr.contains("docker login"), "{stderr}");
    let run = soci.run(&["--debug", "create", "--min-layer-size=0", "--user", "me:wrong-secret", &reference]);
    assert!(!run.err().contains("wrong-secret"), "{}", run.stderr());
    soci.ok(&[&CREATE[..], &["--user", "me:pa:ss", &reference]].concat());
    let run = soci.run_with_input(&["push", "-u", "me", "--password-stdin", &reference], "pa:ss\n");
    run.ok();
    std::fs::create_dir(soci.dir().join(".docker")).unwrap();
    let config = serde_json::json!({"auths": {registry.host(): {"username": "me", "password": "pa:ss"}}});
    std::fs::write(soci.dir().join(".docker/config.json"), config.to_string()).unwrap();
    soci.ok(&["push", &reference]);
    assert!(soci.err(&["push", "-u", "me", &reference]).contains("--password-stdin"));
}

/// Against a registry that nobody here wrote; Debian's has no referrers API.
#[test]
fn docker_registry_takes_and_gives_an_index() {
    let Some(registry) = DockerRegistry::start() else { return };
    let soci = Soci::new();
    let golden = golden::load();
    let layout = golden::image_dir("all-layers");
    let reference = registry.copy(&format!("oci:{}", layout.display()), "golden/all:v1");
    let row = golden.images["all-layers"].create.iter().find(|row| row.span_size == 4_194_304).unwrap();
    let stdout = soci.ok(&["create", "--min-layer-size=0", "--push", &reference]);
    let index = &row.indexes[0].digest;
    assert!(stdout.contains(&format!("successfully pushed artifact with digest: {index}")), "{stdout}");
    let found = discovered(&reference).unwrap();
    assert_eq!((found.digest.as_str(), found.covered), (index.as_str(), row.indexes[0].ztocs));

    let other = soci.ok(&["create", "-q", "--min-layer-size=0", "--span-size=65536", &reference]);
    let stdout = soci.ok(&["push", &reference]);
    assert!(
        stdout.contains(&format!("[WARN] soci index found in remote repository with digest: {index}")),
        "{stdout}"
    );
    assert_eq!(discovered(&reference).unwrap().digest.as_str(), other.trim().min(index.as_str()));

    // The other platforms of a larger image.
    let reference =
        registry.copy(&format!("oci:{}", golden::image_dir("multi-platform").display()), "golden/multi:v1");
    soci.ok(&["create", "--min-layer-size=0", "--all-platforms", &reference]);
    let stdout = soci.ok(&["push", "--all-platforms", "--max-concurrent-uploads=1", &reference]);
    assert_eq!(after(&stdout, "pushing soci index with digest: ").len(), 2, "{stdout}");
}
