//! `soci create`, `push` and `index rm` with a real containerd.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::process::Command;

use common::{Soci, after};
use futures::TryStreamExt;
use registry::{BlobReader, Descriptor, Digest};
use soci_index::containerd::labels::{self, Labels};
use soci_index::containerd::{Containerd, ContainerdError, Opened, Written};
use soci_index::manifest::{IndexManifest, IndexVersion};
use soci_index::source::{Check, ContainerdSource, ImageSource, SourceError};
use soci_index::store::Store;
use testdata::containerd::Containerd as Server;
use testdata::docker_registry::DockerRegistry;
use testdata::image::{
    Compression, Entry, Image, ImageBuilder, ImageIndex, IndexBuilder, LayerBuilder, Texture,
};

const CREATE: [&str; 2] = ["create", "--min-layer-size=0"];

fn image(seed: u64, platform: &str) -> Image {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::made("big", Texture::Text, seed, 3_000_000));
    layer.add(Entry::file("platform", platform.as_bytes().to_vec()));
    let mut second = LayerBuilder::new(Compression::None);
    second.add(Entry::made("hello", Texture::Binary, seed, 10_000));
    ImageBuilder::new().platform(platform).layer(layer.finish()).layer(second.finish()).build()
}

fn two_platforms() -> (Image, Image, ImageIndex) {
    let (amd64, arm64) = (image(1, "linux/amd64"), image(2, "linux/arm64"));
    let index = IndexBuilder::new().image(&amd64).image(&arm64).build();
    (amd64, arm64, index)
}

fn digest(text: &str) -> Digest {
    text.parse().unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// Puts an image into a registry, and returns its reference there.
fn publish(registry: &DockerRegistry, write: impl FnOnce(&std::path::Path), name: &str) -> String {
    let layout = tempfile::tempdir().unwrap();
    write(layout.path());
    registry.copy(&format!("oci:{}:v1", layout.path().display()), name)
}

fn leases(server: &Server) -> usize {
    server.ok(&["leases", "ls", "-q"]).lines().count()
}

#[test]
fn indexes_of_an_image_in_containerd_live_as_long_as_the_image() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let (_, _, index) = two_platforms();
    let reference = publish(&registry, |dir| index.write_layout(dir, "v1"), "app:v1");
    server.ok(&["content", "fetch", "--plain-http", "--all-platforms", &reference]);
    let soci = Soci::with_containerd(&server.address());

    let run = soci.run(&[&CREATE[..], &["--all-platforms", &reference]].concat());
    let stdout = run.ok();
    assert!(run.stderr().contains(&format!("reading {reference} from containerd at")), "{}", run.stderr());
    let lines = after(&stdout, "soci index ");
    assert_eq!(lines.len(), 2, "{stdout}");
    let indexes: Vec<&str> = lines.iter().map(|line| &line[..71]).collect();
    assert_eq!(leases(&server), 0);

    // All of it is in containerd, nothing of it in our own directory, and it stays.
    server.collect_garbage();
    let content = server.ok(&["content", "ls", "-q"]);
    for index in &indexes {
        assert!(content.contains(index), "{content}");
        let manifest: serde_json::Value = serde_json::from_str(&soci.ok(&["index", "info", index])).unwrap();
        for ztoc in manifest["layers"].as_array().unwrap() {
            let ztoc = ztoc["digest"].as_str().unwrap();
            assert!(content.contains(ztoc), "{content}");
            soci.ok(&["ztoc", "info", ztoc]);
        }
    }
    assert_eq!(std::fs::read_dir(soci.root().join("content/blobs/sha256")).unwrap().count(), 0);
    assert_eq!(soci.indexes().len(), 2);

    // Also when the image is pulled again, which takes the labels off its record.
    server.ok(&["image", "label", &reference, "containerd.io/gc.ref.content.soci-index="]);
    for index in &indexes {
        server.ok(&["image", "label", &reference, &format!("{}=", labels::soci_index(&digest(index)))]);
    }
    server.collect_garbage();
    let content = server.ok(&["content", "ls", "-q"]);
    assert!(indexes.iter().all(|index| content.contains(index)), "{content}");

    // A second run builds nothing.
    let stdout = soci.ok(&[&CREATE[..], &["--all-platforms", &reference]].concat());
    assert_eq!(stdout.matches("(already exists)").count(), 4, "{stdout}");

    // They are found there for pushing, and for reading a file.
    let stdout = soci.ok(&["push", "--all-platforms", &reference]);
    assert_eq!(after(&stdout, "pushing soci index with digest: "), indexes);
    let ztoc = soci.ok(&["ztoc", "ls", "-q"]).lines().next().unwrap().to_owned();
    let file = soci.run(&["ztoc", "get-file", &ztoc, "platform"]);
    let hello = soci.run(&["ztoc", "get-file", &ztoc, "hello"]);
    assert!(file.code() == Some(0) || hello.code() == Some(0), "{}{}", file.stderr(), hello.stderr());

    // Removing one takes its labels off, and the collector does the rest. The other one stays.
    soci.ok(&["index", "rm", indexes[0]]);
    server.collect_garbage();
    let content = server.ok(&["content", "ls", "-q"]);
    assert!(!content.contains(indexes[0]) && content.contains(indexes[1]), "{content}");
    assert!(!server.ok(&["image", "ls"]).contains(indexes[0]));
    let error = soci.err(&["index", "info", indexes[0]]);
    assert!(error.contains("is not in the store"), "{error}");

    // Without the image there is no reason for the other one to stay.
    server.ok(&["image", "rm", "--sync", &reference]);
    let content = server.ok(&["content", "ls", "-q"]);
    assert!(!content.contains(indexes[1]), "{content}");
}

#[test]
fn the_index_is_the_same_wherever_the_image_is_read() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let reference = publish(&registry, |dir| image(3, "linux/amd64").write_layout(dir, "v1"), "same:v1");
    server.ok(&["content", "fetch", "--plain-http", &reference]);
    let build = |soci: &Soci, image: &str| soci.ok(&[&CREATE[..], &["-q", image]].concat());
    let there = Soci::with_containerd(&server.address());
    let here = Soci::new();
    let expected = build(&here, &reference);
    assert_eq!(build(&there, &format!("containerd:{reference}")), expected);
    assert!(!there.root().join("content/blobs/sha256").join(&expected.trim()[7..]).exists());
    // Forced the other way, what is known already is copied into the local store.
    assert_eq!(build(&there, &format!("docker://{reference}")), expected);
    assert!(there.root().join("content/blobs/sha256").join(&expected.trim()[7..]).exists());
    // And the store that is asked for is used.
    let apart = Soci::with_containerd(&server.address());
    let args =
        ["--content-store=soci", "create", "-q", "--min-layer-size=0", &format!("containerd:{reference}")];
    assert_eq!(apart.ok(&args), expected);
    assert!(apart.root().join("content/blobs/sha256").join(&expected.trim()[7..]).exists());
}

#[test]
fn what_containerd_lacks_comes_from_the_registry_or_is_said() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let (amd64, _, index) = two_platforms();
    let reference = publish(&registry, |dir| index.write_layout(dir, "v1"), "part:v1");
    let soci = Soci::with_containerd(&server.address());

    // Not there at all.
    let run = soci.run(&[&CREATE[..], &["--platform=linux/amd64", &reference]].concat());
    run.ok();
    assert!(
        run.stderr().contains(&format!("does not have {reference}; reading it from its registry")),
        "{}",
        run.stderr()
    );
    let error = soci.err(&["create", &format!("containerd:{reference}")]);
    assert!(error.contains(&format!("has no image {reference}")) && error.contains("image ls"), "{error}");
    // In another namespace.
    server.ok(&["-n", "other", "content", "fetch", "--plain-http", "--platform=linux/amd64", &reference]);
    let run =
        soci.run(&["-n", "other", "create", "--min-layer-size=0", "--platform=linux/amd64", &reference]);
    run.ok();
    assert!(run.stderr().contains("namespace other"), "{}", run.stderr());

    // One platform of two.
    server.ok(&["content", "fetch", "--plain-http", "--platform=linux/amd64", &reference]);
    let run = soci.run(&[&CREATE[..], &["--all-platforms", &reference]].concat());
    assert_eq!(after(&run.ok(), "soci index ").len(), 1);
    assert!(run.stderr().contains("platform linux/arm64 gets no index"), "{}", run.stderr());
    let error = soci.err(&[&CREATE[..], &["--platform=linux/arm64", &reference]].concat());
    assert!(error.contains("which has the image without it"), "{error}");
    assert!(error.contains(&format!("docker://{reference}")), "{error}");

    // A layer that was never fetched.
    let layer = amd64.layers()[0].digest.clone();
    server.ok(&["content", "rm", &layer]);
    let error = soci.err(&[&CREATE[..], &["--force", "--platform=linux/amd64", &reference]].concat());
    assert!(error.contains(&layer) && error.contains(&format!("docker://{reference}")), "{error}");
    assert_eq!(leases(&server), 0);
    soci.ok(&[&CREATE[..], &["--platform=linux/amd64", &format!("docker://{reference}")]].concat());
}

#[test]
fn verify_reads_from_the_registry_what_containerd_lacks_and_calls_nothing_wrong_that_it_could_not_read() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let image = image(7, "linux/amd64");
    let reference = publish(&registry, |dir| image.write_layout(dir, "v1"), "lazy:v1");
    let soci = Soci::with_containerd(&server.address());
    soci.ok(&[&CREATE[..], &["--push", &format!("docker://{reference}")]].concat());
    // As after a lazy pull: the image is known, its layers never came.
    server.ok(&["content", "fetch", "--plain-http", &reference]);
    for layer in image.layers() {
        server.ok(&["content", "rm", &layer.digest]);
    }
    for name in [reference.clone(), format!("containerd:{reference}")] {
        let run = soci.run(&["verify", &name]);
        let said = run.ok();
        assert!(said.matches(" ok").count() == 2 && !said.contains("WRONG"), "{said}");
        assert!(run.stderr().contains("the rest was read from its registry"), "{}", run.stderr());
    }
    drop(registry);
    let run = soci.run(&["--timeout=20s", "verify", &format!("containerd:{reference}")]);
    assert_eq!(run.code(), Some(1));
    let said = format!("{}{}", run.stdout(), run.stderr());
    assert!(said.contains("could not be checked") && !said.contains("WRONG"), "{said}");
}

#[test]
fn without_containerd_nothing_is_said_unless_it_was_asked_for() {
    let Some(registry) = DockerRegistry::start() else { return };
    let reference = publish(&registry, |dir| image(4, "linux/amd64").write_layout(dir, "v1"), "none:v1");
    let soci = Soci::new();
    if !std::path::Path::new("/run/containerd/containerd.sock").exists() {
        let create = |flag: &[&str], root: &str| {
            let root = soci.dir().join(root).display().to_string();
            let args = [flag, &["--root", &root, "create", "--min-layer-size=0", &reference]].concat();
            let output = Command::new(env!("CARGO_BIN_EXE_soci")).env_clear().args(args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        assert_eq!(create(&[], "silent"), "");
        let said = create(&["--content-store=containerd"], "asked");
        assert!(said.contains("cannot connect to containerd at /run/containerd/containerd.sock"), "{said}");
    }
    // A socket that nobody listens at is no reason to wait.
    let dead = soci.dir().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let address = format!("unix://{}", dead.display());
    let soci = Soci::with_containerd(&address);
    let run = soci.run(&["--timeout=20s", "create", "--min-layer-size=0", &reference]);
    run.ok();
    assert!(run.stderr().contains("cannot connect to containerd at"), "{}", run.stderr());
    let error = soci.err(&["--timeout=20s", "create", &format!("containerd:{reference}")]);
    assert!(error.contains("is containerd running?"), "{error}");
    let run = soci.run(&["push", &reference]);
    run.ok();
    assert_eq!(run.stderr(), "");
}

#[test]
fn somebody_who_listens_and_does_not_answer_is_not_waited_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mute");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = block_on(Containerd::connect(&path.display().to_string(), "default")).unwrap_err();
    assert!(matches!(error, ContainerdError::Silent { .. }), "{error}");
}

#[test]
fn content_is_written_once_and_verified() {
    let Some(server) = Server::start() else { return };
    block_on(async {
        let client = Containerd::connect(&format!("unix://{}", server.address()), "default").await.unwrap();
        let lease = client.lease().await.unwrap();
        let leased = lease.containerd();
        // More than one message.
        let bytes = bytes::Bytes::from((0..5_000_000u32).map(|i| (i * 7 / 3) as u8).collect::<Vec<_>>());
        let blob = Descriptor::of("", &bytes);
        let stream = |from: usize, bytes: &bytes::Bytes| -> registry::ByteStream {
            let pieces: Vec<_> =
                bytes.slice(from..).chunks(700_001).map(bytes::Bytes::copy_from_slice).map(Ok).collect();
            Box::pin(futures::stream::iter(pieces))
        };
        let no_labels = Labels::new();
        let write = |bytes: bytes::Bytes| {
            let (blob, no_labels) = (blob.clone(), no_labels.clone());
            async move {
                let open = |from: u64| std::future::ready(Ok(stream(from as usize, &bytes)));
                leased.write_content("x", &blob, &no_labels, open, |_| {}).await
            }
        };

        // Wrong bytes, too few, too many: nothing is stored.
        let mut wrong = bytes.to_vec();
        wrong[4_999_999] ^= 1;
        for bad in [wrong.into(), bytes.slice(..4_999_999), [&bytes[..], b"x"].concat().into()] {
            assert!(write(bad).await.is_err());
            assert!(client.content_info(&blob.digest).await.unwrap().is_none());
        }
        // A source that breaks off: the next one goes on where it stopped.
        let open = |_| {
            let broken = registry::Error::io(std::path::Path::new("x"), std::io::Error::other("broken"));
            let pieces = vec![Ok(bytes.slice(..3 << 20)), Err(broken)];
            std::future::ready(Ok(Box::pin(futures::stream::iter(pieces)) as registry::ByteStream))
        };
        let error = leased.write_content("x", &blob, &no_labels, open, |_| {}).await.unwrap_err();
        assert!(matches!(error, ContainerdError::Source(_)), "{error}");
        let asked = std::sync::Mutex::new(Vec::new());
        let open = |from: u64| {
            asked.lock().unwrap().push(from);
            std::future::ready(Ok(stream(from as usize, &bytes)))
        };
        let written = leased.write_content("x", &blob, &no_labels, open, |_| {}).await.unwrap();
        assert_eq!((written, asked.into_inner().unwrap()), (Written::New, vec![3 << 20]));
        assert_eq!(write(bytes.clone()).await.unwrap(), Written::There);

        // Remains that are wrong are thrown away.
        let second = bytes.slice(1..);
        let (blob, junk) = (Descriptor::of("", &second), bytes.slice(..2 << 20));
        let open = |_| {
            let broken = registry::Error::io(std::path::Path::new("x"), std::io::Error::other("broken"));
            std::future::ready(Ok(
                Box::pin(futures::stream::iter([Ok(junk.clone()), Err(broken)])) as registry::ByteStream
            ))
        };
        leased.write_content("y", &blob, &no_labels, open, |_| {}).await.unwrap_err();
        let open = |from: u64| std::future::ready(Ok(stream(from as usize, &second)));
        let written = leased.write_content("y", &blob, &no_labels, open, |_| {}).await.unwrap();
        assert_eq!(written, Written::New);

        // Reading: whole, in part, and within bounds.
        assert_eq!(client.content_bytes(&blob.digest, 5_000_000).await.unwrap().unwrap(), second);
        assert!(client.content_bytes(&blob.digest, 4_999_998).await.is_err());
        assert!(client.content_bytes(&Digest::of(b"none"), 1).await.unwrap().is_none());
        let reader = client.content_reader(&blob.digest).await.unwrap().unwrap();
        let part: Vec<bytes::Bytes> =
            reader.read_range(1_000_000..3_500_001).await.unwrap().try_collect().await.unwrap();
        assert_eq!(part.concat(), second[1_000_000..3_500_001]);
        assert!(reader.read_range(0..5_000_000).await.is_err());

        // Labels are added and removed one by one.
        let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        client.label_content(&blob.digest, label("a", "1")).await.unwrap();
        client.label_content(&blob.digest, label("b", "2")).await.unwrap();
        client.label_content(&blob.digest, label("a", "")).await.unwrap();
        let info = client.content_info(&blob.digest).await.unwrap().unwrap();
        assert_eq!((info.size, info.labels), (4_999_999, label("b", "2")));
        assert!(matches!(leased.open_writer("z", &blob).await.unwrap(), Opened::There));
        lease.release().await.unwrap();
    });
    assert_eq!(leases(&server), 0);
}

#[test]
fn what_a_build_writes_is_kept_by_its_lease_until_the_index_is() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let image = image(6, "linux/amd64");
    let reference = publish(&registry, |dir| image.write_layout(dir, "v1"), "lease:v1");
    server.ok(&["content", "fetch", "--plain-http", &reference]);
    let root = tempfile::tempdir().unwrap();
    block_on(async {
        let client = Containerd::connect(&server.address(), "default").await.unwrap();
        let there = async |digest: &Digest| client.content_info(digest).await.unwrap().is_some();
        let lease = client.lease().await.unwrap();
        let local = Store::open(root.path()).unwrap();
        let store = local.clone().writing_containerd(lease.containerd().clone());
        let (kept, lost) = (bytes::Bytes::from_static(b"a zTOC"), bytes::Bytes::from_static(b"another"));
        let kept = Descriptor { digest: store.put(kept.clone()).await.unwrap(), ..Descriptor::of("", &kept) };
        let lost = Descriptor { digest: store.put(lost.clone()).await.unwrap(), ..Descriptor::of("", &lost) };
        server.collect_garbage();
        assert!(there(&kept.digest).await && there(&lost.digest).await);
        // A later build finds one there, and an interrupted one leaves nothing that stays.
        lease.release().await.unwrap();
        let lease = client.lease().await.unwrap();
        let store = local.writing_containerd(lease.containerd().clone());
        assert!(store.adopt(&kept.digest, kept.size).await.unwrap());
        server.collect_garbage();
        assert!(there(&kept.digest).await && !there(&lost.digest).await);
        assert!(!store.adopt(&lost.digest, lost.size).await.unwrap());
        // From the image on, through its manifest, to the index and what that names.
        let subject =
            Descriptor::new(image.media_type(), digest(image.digest()), image.manifest().len() as u64);
        let layer = Descriptor::new("l", digest(&image.layers()[0].digest), 1);
        let ztoc = IndexManifest::ztoc_descriptor(kept.digest.clone(), kept.size, &layer, 1, false);
        let manifest = IndexManifest::new(IndexVersion::V1, vec![ztoc], Some(&subject), "t");
        let index = store.put_index(&manifest).await.unwrap();
        lease.release().await.unwrap();
        server.collect_garbage();
        assert!(there(&kept.digest).await && there(&index.digest).await);
        assert!(there(&Digest::of(b"{}")).await);
        server.ok(&["image", "rm", "--sync", &reference]);
        assert!(!there(&kept.digest).await && !there(&index.digest).await);
    });
}

#[test]
fn a_lease_ends_when_it_is_dropped() {
    let Some(server) = Server::start() else { return };
    block_on(async {
        let client = Containerd::connect(&server.address(), "default").await.unwrap();
        let lease = client.lease().await.unwrap();
        assert_eq!(leases(&server), 1);
        drop(lease);
        assert_eq!(leases(&server), 0);
    });
}

#[test]
fn blobs_of_the_wrong_size_are_not_read() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(server) = Server::start() else { return };
    let image = image(5, "linux/amd64");
    let reference = publish(&registry, |dir| image.write_layout(dir, "v1"), "size:v1");
    server.ok(&["content", "fetch", "--plain-http", &reference]);
    block_on(async {
        let client = Containerd::connect(&server.address(), "default").await.unwrap();
        let source = ContainerdSource::find(&client, &reference).await.unwrap().unwrap();
        assert_eq!(source.name(), reference);
        let layer = &image.layers()[0];
        let right = Descriptor::new("", digest(&layer.digest), layer.size);
        let pieces: Vec<bytes::Bytes> =
            source.open_blob(&right, Check::BySource).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), layer.bytes());
        let wrong = Descriptor { size: layer.size + 1, ..right.clone() };
        for result in [
            source.open_blob(&wrong, Check::ByCaller).await.map(|_| ()),
            source.blob_reader(&wrong).await.map(|_| ()),
            source.small_blob(&wrong, 1 << 30).await.map(|_| ()),
        ] {
            assert!(matches!(result, Err(SourceError::Corrupt { .. })), "{result:?}");
        }
        assert!(matches!(source.small_blob(&right, 10).await, Err(SourceError::Document { .. })));
        assert!(ContainerdSource::find(&client, "no/such:image").await.unwrap().is_none());
    });
}
