//! Layers that are prepared without the ones below them, as containerd does to unpack in parallel.

use super::*;
use crate::snapshotter::labels;
use crate::snapshotter::prepare::Prepared;
use crate::snapshotter::record::RecordedMode;
use crate::snapshotter::store::Labels;

/// Directories that a layer does not mention are left out of this: containerd gives them the attributes below, but
/// cannot if it does not know what is below.
fn with_whiteouts() -> Image {
    let a = || Entry::dir("a").mode(0o711).owner(5, 6);
    image([
        layer([
            Entry::dir(".").mode(0o750).owner(7, 8),
            a(),
            Entry::file("a/one", "1"),
            Entry::file("a/two", "2"),
        ]),
        layer([Entry::dir("b"), Entry::file("b/three", "333"), Entry::dir("c"), Entry::file("c/gone", "")]),
        layer([
            a(),
            Entry::whiteout("a/two"),
            Entry::file("a/four", "4"),
            Entry::dir("c"),
            Entry::opaque("c"),
        ]),
    ])
}

/// The parents of an image's snapshots are there, whatever containerd was told.
async fn assert_linked(rig: &Rig, client: &Client, image: &Image) {
    for position in 0..image.layers().len() {
        let info = rig.snapshotter().stat(&client.name(image, position)).await.unwrap();
        let below = position.checked_sub(1).map(|below| client.name(image, below)).unwrap_or_default();
        assert_eq!(info.parent, below, "layer {position}");
        assert!(!info.labels.contains_key(labels::PARENT_LATER), "{:?}", info.labels);
    }
}

async fn assert_shows(rig: &Rig, client: &Client, image: &Image) {
    // The time of the root directory is that of the topmost one, whether or not the layer says something about it.
    let mounts = client.view(image).await.unwrap();
    rig.mount(&mounts).await.assert_shows_writable(image.layers()).await;
    let (_, mounts) = client.container(image, Labels::new()).await.unwrap();
    rig.mount(&mounts).await.assert_shows_writable(image.layers()).await;
}

/// What is ready without having a parent stays without one in containerd, which then collects what is below it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_layer_is_ready_without_those_below_it() {
    for (indexed, lowest) in [(&[0, 1, 2][..], "lazy"), (&[1], "eager")] {
        let Some(rig) = Rig::new().await else { return };
        let image = with_whiteouts();
        rig.push_indexed(&image, indexed);
        for told in [false, true] {
            let mut client = Client::new(&rig, "test");
            assert_eq!(
                client.pull_in_parallel(&image, told).await,
                [lowest, "deferred", "deferred"],
                "{told}"
            );
            assert_linked(&rig, &client, &image).await;
            assert_shows(&rig, &client, &image).await;
            let record = client.record(&image, 1).unwrap();
            assert!(matches!(record.mode, RecordedMode::Deferred { reason } if reason.contains("rebase")));
            // Whoever pulls in the ordinary way is not held up by that.
            let mut other = Client::new(&rig, "other");
            assert_eq!(other.pull(&image).await[1], "lazy");
            assert_shows(&rig, &other, &image).await;
            client.remove_all().await;
            other.remove_all().await;
            rig.snapshotter().cleanup().await.unwrap();
            rig.assert_empty().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_unpacks_all_layers_of_an_image_without_an_index() {
    let Some(rig) = Rig::new().await else { return };
    let image = with_whiteouts();
    rig.push(&image);
    for told in [false, true] {
        let mut client = Client::new(&rig, "test");
        assert_eq!(client.pull_in_parallel(&image, told).await, ["deferred"; 3]);
        assert_linked(&rig, &client, &image).await;
        assert_shows(&rig, &client, &image).await;
        client.remove_all().await;
    }
}

/// A root directory that is as new directories are is not that of a layer which has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_has_the_last_word_about_its_root() {
    let Some(rig) = Rig::new().await else { return };
    let base = || layer([Entry::dir(".").mode(0o750).owner(7, 8), Entry::file("one", "1")]);
    for upper in [
        layer([Entry::dir(".").mode(0o755).owner(0, 0), Entry::file("two", "2")]),
        layer([Entry::dir(".").mode(0o755).owner(0, 0)]),
        layer([Entry::dir(".").mode(0o711).owner(0, 0), Entry::file("two", "2")]),
        layer([Entry::file("two", "2")]),
        layer([]),
    ] {
        let image = image([base(), upper]);
        rig.push(&image);
        for told in [false, true] {
            let mut client = Client::new(&rig, "test");
            assert_eq!(client.pull_in_parallel(&image, told).await, ["deferred"; 2]);
            assert_shows(&rig, &client, &image).await;
            client.remove_all().await;
        }
    }
}

/// Nobody knows what is below: containerd gets mounts that whiteouts can be unpacked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_labels_there_is_room_for_whiteouts() {
    let Some(rig) = Rig::new().await else { return };
    let given = Labels::from([(labels::TARGET.to_owned(), "sha256:chain".to_owned())]);
    let prepared = rig.snapshotter().prepare(Some("test"), "test/1/key", "", given).await.unwrap();
    let Prepared::Mounts(mounts) = prepared else { panic!("{prepared:?}") };
    assert_eq!(mounts[0].kind, "overlay");
    // It can be mounted, should a client do that.
    drop(rig.mount(&mounts).await);
    // And it can be the lowest layer in the end.
    rig.snapshotter().commit("test/2/chain", "test/1/key", "", Labels::new()).await.unwrap();
    assert_eq!(rig.snapshotter().stat("test/2/chain").await.unwrap().parent, "");
}
