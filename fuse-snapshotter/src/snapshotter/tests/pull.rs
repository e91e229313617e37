//! How layers are served, and why.

use std::time::Duration;

use testdata::image::Entry;
use testdata::registry::{Action, Fault};

use super::*;
use crate::snapshotter::error::SnapshotError;
use crate::snapshotter::labels;
use crate::snapshotter::prepare::Prepared;
use crate::snapshotter::record::RecordedMode;
use crate::snapshotter::store::{Kind, Labels, StoreError};

fn reason(client: &Client, image: &Image, position: usize) -> String {
    match client.record(image, position).unwrap().mode {
        RecordedMode::Eager { reason } | RecordedMode::Deferred { reason } => reason,
        mode => panic!("{mode:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lazy_layer_is_committed_at_once() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    let index = rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["lazy"; 3]);
    for position in 0..3 {
        let info = rig.snapshotter().stat(&client.name(&image, position)).await.unwrap();
        assert_eq!(info.kind, Kind::Committed);
        assert_eq!(info.name, client::chain(&image, position));
        assert_eq!(info.labels[labels::REMOTE], labels::REMOTE_VALUE);
        assert_eq!(info.labels[labels::NAMESPACE], "test");
        assert_eq!(info.labels[labels::HAS_INDEX], "true");
        let record = client.record(&image, position).unwrap();
        let RecordedMode::Lazy { index: found, .. } = record.mode else { panic!("{record:?}") };
        assert_eq!(found, index);
        assert_eq!(record.size, image.layers()[position].size);
    }
    // The tree is there before a container is.
    eventually("the tree is mounted", || rig.snapshotter().trees.len() == 1).await;
    // No layer was fetched as a whole.
    for layer in image.layers() {
        let path = format!("/blobs/{}", layer.digest);
        let asked: Vec<_> =
            rig.registry.requests().into_iter().filter(|request| request.path.ends_with(&path)).collect();
        assert!(
            !asked.is_empty() && asked.iter().all(|request| request.header("range").is_some()),
            "{asked:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_without_a_ztoc_are_unpacked() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[1]);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["eager", "lazy", "eager"]);
    assert_eq!(reason(&client, &image, 0), "no ztoc for layer");
    let info = rig.snapshotter().stat(&client.name(&image, 0)).await.unwrap();
    assert!(!info.labels.contains_key(labels::REMOTE));
    assert!(rig.snapshotter().usage(&client.name(&image, 0)).await.unwrap().inodes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_layers_are_unpacked() {
    let image = simple();
    let sizes: Vec<_> = image.layers().iter().map(|layer| layer.size).collect();
    let largest = *sizes.iter().max().unwrap();
    let Some(rig) = Rig::with(|options| options.settings.pull.min_layer_size = largest).await else { return };
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    let expected: Vec<_> = sizes.iter().map(|size| if *size == largest { "lazy" } else { "eager" }).collect();
    assert_eq!(client.pull(&image).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_index_containerd_does_it() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push(&image);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["deferred"; 3]);
    assert!(reason(&client, &image, 2).contains("no SOCI index"));
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
    // Without any sign of laziness.
    assert_eq!(rig.snapshotter().trees.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_index_we_do_it_if_asked_to() {
    let Some(rig) = Rig::with(|options| options.settings.pull.unpack_without_index = true).await else {
        return;
    };
    let image = simple();
    rig.push(&image);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["eager"; 3]);
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_asked_for_by_its_digest_is_used_and_no_other() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let sparse = rig.index_as(&image, &[2], |position| position);
    for (digest, modes) in [
        (sparse.to_string(), ["eager", "eager", "lazy"]),
        // None at all, and one that makes no sense.
        (Digest::of(b"nothing").to_string(), ["deferred"; 3]),
        (image.digest().to_owned(), ["deferred"; 3]),
        ("sha256:nonsense".to_owned(), ["none"; 3]),
    ] {
        let mut client = Client::new(&rig, "test");
        client.extra.insert(labels::INDEX_DIGEST.to_owned(), digest.clone());
        assert_eq!(client.pull(&image).await, modes, "{digest}");
        client.remove_all().await;
    }
}

/// The zTOCs of other layers, under the digests of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_index_makes_layers_eager() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push(&image);
    rig.index_as(&image, &[0, 1, 2], |position| (position + 1) % 3);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["eager"; 3]);
    assert!(reason(&client, &image, 0).contains("zTOC"), "{}", reason(&client, &image, 0));
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_labels_containerd_does_it() {
    let Some(rig) = Rig::new().await else { return };
    let given = Labels::from([(labels::TARGET.to_owned(), "sha256:chain".to_owned())]);
    rig.snapshotter().prepare(Some("test"), "test/1/key", "", given.clone()).await.unwrap();
    let error = rig.snapshotter().prepare(None, "key", "", given).await.unwrap_err();
    assert!(matches!(error, SnapshotError::NoNamespace), "{error}");
}

/// An error is not remembered: neither the index that could not be looked for, nor a layer that could not be fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_dies_in_the_middle_and_is_back() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    assert!(matches!(client.prepare_layer(&image, 0).await, Ok(Prepared::Ready(_))));
    // What the pull has prepared ahead is lost with it.
    rig.snapshotter().images.cancel(&image.digest().parse().unwrap());
    rig.registry.inject(Fault::status(503));
    assert!(client.clone().prepare_layer(&image, 1).await.is_ok(), "containerd is to try");
    assert!(client.clone().prepare_layer(&image, 1).await.is_ok(), "containerd is to try");
    rig.registry.clear_faults();
    // containerd does not ask for the lowest layer again, which it has.
    for position in [1, 2] {
        let prepared = client.prepare_layer(&image, position).await;
        assert!(matches!(prepared, Ok(Prepared::Ready(_))), "{prepared:?}");
        assert!(matches!(client.record(&image, position).unwrap().mode, RecordedMode::Lazy { .. }));
    }
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}

/// Layers of which the same content is there twice are different layers of the image.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_layer_twice_is_one_pull() {
    let Some(rig) = Rig::new().await else { return };
    let twice = || layer([Entry::file("twice", "2")]);
    let image = image([
        twice(),
        layer([Entry::file("between", "b"), Entry::whiteout("twice")]),
        layer([Entry::file("x", "x")]),
        twice(),
    ]);
    rig.push_indexed(&image, &[0, 1, 2, 3]);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["lazy"; 4]);
    let manifest = format!("/manifests/{}", image.digest());
    let asked = rig.registry.requests().iter().filter(|request| request.path.ends_with(&manifest)).count();
    assert_eq!(asked, 1, "the pull was begun anew");
    eventually("the tree is mounted", || !rig.snapshotter().trees.is_empty()).await;
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
    assert_eq!(rig.snapshotter().trees.len(), 1, "a tree of a lower layer was mounted");
}

/// A layer that waits for those below it must not keep them from being made ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_needs_those_below_leaves_them_room() {
    let Some(rig) = Rig::with(|options| options.settings.pull.parallel_layers = 1).await else { return };
    let image = image([layer([Entry::file("file", "content")]), layer([Entry::hard_link("link", "file")])]);
    rig.push_indexed(&image, &[0, 1]);
    let ztoc = Digest::of(&ztoc_of(&image.layers()[1]));
    rig.registry.inject(Fault::once(Action::Stall(Duration::from_millis(500))).path(ztoc.as_ref()));
    let client = Client::new(&rig, "test");
    // Another client has the lower layer already, and is first.
    let upper = {
        let request = client.request(&image, 1);
        let images = Arc::clone(&rig.snapshotter().images);
        tokio::spawn(async move { images.layer(&request, false).await })
    };
    let asked = || rig.registry.requests().iter().any(|request| request.path.contains(&ztoc.to_string()));
    eventually("the upper layer's zTOC is asked for", asked).await;
    let lower = client.request(&image, 0);
    let started = std::time::Instant::now();
    let lower = rig.snapshotter().images.layer(&lower, true).await;
    assert!(matches!(lower.0, crate::snapshotter::pull::PulledLayer::Lazy(_)), "{lower:?}");
    let upper = upper.await.unwrap();
    assert!(matches!(upper.0, crate::snapshotter::pull::PulledLayer::Lazy(_)), "{upper:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// What was right over the layers of one pull may be wrong over those that are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_a_layer_that_is_not_lazy_here_does_not_break_the_image() {
    let Some(rig) = Rig::new().await else { return };
    let image = image([
        layer([Entry::file("other", "other")]),
        layer([Entry::file("file", "content")]),
        layer([Entry::hard_link("link", "file")]),
    ]);
    // The middle layer was unpacked by an earlier pull.
    let sparse = rig.push_indexed(&image, &[0]);
    let mut client = Client::new(&rig, "test");
    client.extra.insert(labels::INDEX_DIGEST.to_owned(), sparse.to_string());
    for position in [0, 1] {
        assert!(matches!(client.prepare_layer(&image, position).await, Ok(Prepared::Ready(_))));
    }
    let complete = rig.index_as(&image, &[0, 1, 2], |position| position);
    let mut other = Client::new(&rig, "other");
    other.extra.insert(labels::INDEX_DIGEST.to_owned(), complete.to_string());
    // Its pull has all zTOCs.
    let lowest = other.request(&image, 0);
    let outcome = rig.snapshotter().images.layer(&lowest, true).await;
    assert!(matches!(outcome.0, crate::snapshotter::pull::PulledLayer::Lazy(_)));
    for position in [0, 1] {
        assert!(matches!(other.prepare_layer(&image, position).await, Ok(Prepared::Ready(_))));
    }
    // Lazily it could never be mounted.
    let given = other.layer_labels(&image, 2);
    let parent = other.name(&image, 1);
    let prepared = rig.snapshotter().prepare(Some("other"), "other/1000/x", &parent, given).await;
    assert!(matches!(prepared, Ok(Prepared::Mounts(_))), "{prepared:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_refused() {
    let Some(rig) = Rig::new().await else { return };
    let snapshotter = rig.snapshotter();
    let given = || Labels::new();
    snapshotter.prepare(Some("test"), "a", "", given()).await.unwrap();
    let error = snapshotter.prepare(Some("test"), "a", "", given()).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Store(StoreError::AlreadyExists(_))), "{error}");
    // The one that was there is still there.
    snapshotter.mounts("a").await.unwrap();
    let error = snapshotter.prepare(Some("test"), "b", "nowhere", given()).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Store(StoreError::NotFound(_))), "{error}");
    let error = snapshotter.prepare(Some("test"), "b", "a", given()).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Store(StoreError::InvalidArgument(_))), "{error}");
    let one = Labels::from([(labels::UID_MAPPING.to_owned(), "0:1:1".to_owned())]);
    let error = snapshotter.prepare(Some("test"), "b", "", one).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Invalid(_)), "{error}");
    let error = snapshotter.mounts("b").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Store(StoreError::NotFound(_))), "{error}");
}

/// What was unpacked cannot be used for a reason of this machine; the container is not to suffer for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_unpacks_what_we_cannot_use() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 2]);
    // A file stands where the directory of the second snapshot would be.
    let directory = rig.layout().fs(2).parent().unwrap().to_owned();
    std::fs::write(directory, "in the way").unwrap();
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["lazy", "deferred", "lazy"]);
    let reason = reason(&client, &image, 1);
    assert!(reason.contains("no ztoc for layer; cannot use what was unpacked"), "{reason}");
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}
