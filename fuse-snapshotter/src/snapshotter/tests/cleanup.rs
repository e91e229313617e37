//! What is removed gives everything back.

use std::time::Duration;

use testdata::image::Entry;
use testdata::registry::{Action, Fault};

use super::*;
use crate::snapshotter::labels;
use crate::snapshotter::store::Labels;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_gives_everything_back() {
    for restart in [false, true] {
        let Some(mut rig) = Rig::new().await else { return };
        let image = simple();
        rig.push_indexed(&image, &[0, 2]);
        let mut client = Client::new(&rig, "test");
        client.pull(&image).await;
        let mounts = client.view(&image).await.unwrap();
        rig.mount(&mounts).await.assert_shows(image.layers()).await;
        assert!(rig.snapshotter().cache.used() > 0);
        drop(client);
        if restart {
            // Nothing of it has been used since.
            rig.restart().await;
        }
        Client::new(&rig, "test").remove_all().await;
        rig.snapshotter().cleanup().await.unwrap();
        rig.assert_empty().await;
    }
}

/// What images share stays as long as one of them does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_layers_stay() {
    let Some(rig) = Rig::new().await else { return };
    let first = simple();
    let second = image([layer([Entry::file("second", "2")]), first.layers()[1].clone()]);
    rig.push_indexed(&first, &[0, 1, 2]);
    rig.push_indexed(&second, &[0, 1]);
    let mut one = Client::new(&rig, "test");
    let mut two = Client::new(&rig, "test");
    one.pull(&first).await;
    two.pull(&second).await;
    for position in [2, 1, 0] {
        rig.snapshotter().remove(&one.name(&first, position)).await.unwrap();
    }
    rig.snapshotter().cleanup().await.unwrap();
    // A tree that was being mounted ahead held the layers for a moment, perhaps.
    eventually("the layers are let go of", || {
        rig.snapshotter().clean().unwrap();
        rig.snapshotter().layers.all().len() == 2
    })
    .await;
    assert_eq!(count(&rig.layout().ztocs()), 2);
    let mounts = two.view(&second).await.unwrap();
    rig.mount(&mounts).await.assert_shows(second.layers()).await;
}

/// Layers that were prepared ahead, and are being unpacked, go when the image is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_stops_the_pull() {
    let Some(rig) = Rig::new().await else { return };
    let image = image([
        layer([Entry::file("lowest", "1")]),
        layer([Entry::file("second", "2")]),
        layer(
            (0..100)
                .map(|file| Entry::made(format!("d/{file}"), testdata::image::Texture::Random, file, 10_000)),
        ),
    ]);
    rig.push_indexed(&image, &[0]);
    // Half of the last layer arrives, and then no more for longer than anyone waits here.
    let stall = Action::StallAfter(image.layers()[2].size / 2, Duration::from_secs(600));
    rig.registry.inject(Fault::always(stall).path(&image.layers()[2].digest));
    let mut client = Client::new(&rig, "test");
    let _ = client.prepare_layer(&image, 0).await;
    let unpack = rig.layout().unpack();
    let both = || count(&unpack) == 2 && (0..2).any(|n| unpack.join(n.to_string()).join("d/5").exists());
    eventually("both layers are being unpacked", both).await;
    client.remove_all().await;
    rig.snapshotter().cleanup().await.unwrap();
    rig.assert_empty().await;
}

/// A container's directories with its own ids are mounts of layers that others use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_containers_mapped_layers_are_not_emptied() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[1]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let mapping = |label: &str| (label.to_owned(), "0:100000:65536".to_owned());
    let given = Labels::from([mapping(labels::UID_MAPPING), mapping(labels::GID_MAPPING)]);
    let (key, mounts) = match client.container(&image, given.clone()).await {
        Ok(made) => made,
        // An old kernel.
        Err(error) => return assert!(error.to_string().contains("cannot map the ids"), "{error}"),
    };
    let mounted = rig.mount(&mounts).await;
    let owner = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(mounted.0.join(path)).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(
        [owner(""), owner("a"), owner("b")],
        [(100_000, 100_000), (100_005, 100_006), (100_000, 100_000)]
    );
    drop(mounted);
    let own: Vec<_> = mounts_below(&rig.layout().mounts());
    let mapped: Vec<_> = own.iter().filter(|path| path.to_string_lossy().contains('_')).cloned().collect();
    assert_eq!(mapped.len(), 3, "{own:?}");
    // Mounted twice, as by a request that comes while the clean-up is at work.
    for path in &mapped {
        rustix::mount::mount_bind(path, path).unwrap();
    }
    rig.snapshotter().remove(&key).await.unwrap();
    rig.snapshotter().cleanup().await.unwrap();
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
    // And the next one finishes the work.
    rig.snapshotter().cleanup().await.unwrap();
    let left = mounts_below(&rig.layout().mounts());
    assert!(left.iter().all(|path| !path.to_string_lossy().contains('_')), "{left:?}");
    // Without layers below, too, the container's root owns its root directory.
    rig.snapshotter().prepare(Some("test"), "test/9/alone", "", given).await.unwrap();
    let id = rig.snapshotter().store.get("test/9/alone").unwrap().id;
    let found = std::fs::symlink_metadata(rig.layout().fs(id)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&found), 100_000);
}
