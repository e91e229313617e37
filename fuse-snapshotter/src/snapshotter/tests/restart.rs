//! A process that ends, and the next one.

use super::*;
use crate::snapshotter::store::Labels;

/// All snapshots are there again, with the registry unreachable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_come_back_without_the_registry() {
    let Some(mut rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 2]);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["lazy", "eager", "lazy"]);
    let mounts = client.view(&image).await.unwrap();
    let mounted = rig.mount(&mounts).await;
    // All of it is in the cache now.
    mounted.assert_shows(image.layers()).await;
    drop(mounted);
    let (key, mounts) = client.container(&image, Labels::new()).await.unwrap();
    let name = client.name(&image, 2);
    drop(client);
    rig.registry.set_down(true);
    for _ in 0..2 {
        rig.restart().await;
        Arc::clone(rig.snapshotter()).restore().await;
        // Of the two runs.
        assert_eq!(rig.snapshotter().trees.len(), 2);
        assert_eq!(rig.snapshotter().mounts(&key).await.unwrap(), mounts);
        let mounted = rig.mount(&mounts).await;
        assert_eq!(mounted.read("a/one").await.unwrap(), "1".repeat(1000).as_bytes());
        drop(mounted);
    }
    // Those that nobody mounted again come when they are asked for.
    rig.restart().await;
    let mounts = rig.snapshotter().view("view", &name, Labels::new()).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}

/// The kernel's table of mounts has no symbolic links in its paths.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_directory_may_be_a_link() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().to_owned();
    let Some(mut rig) = Rig::with(|options| {
        std::os::unix::fs::symlink(&target, &options.root).unwrap();
    })
    .await
    else {
        return;
    };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let (key, _) = client.container(&image, Labels::new()).await.unwrap();
    drop(client);
    rig.restart().await;
    let left = mounts_below(&rig.layout().mounts());
    assert!(left.is_empty(), "{left:?}");
    let mounts = rig.snapshotter().mounts(&key).await.unwrap();
    assert!(rig.mount(&mounts).await.read("a/four").await.is_ok());
}

/// What is still being mounted does not bring back what was taken down for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_mounted_after_the_end() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let (key, _) = client.container(&image, Labels::new()).await.unwrap();
    rig.snapshotter().unmount_all();
    assert!(rig.snapshotter().mounts(&key).await.is_err());
    let left = mounts_below(&rig.layout().mounts());
    assert!(left.is_empty(), "{left:?}");
}

/// Whoever aborts the connection ends the running containers' view, but no later one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_was_aborted_is_mounted_anew() {
    use std::os::unix::fs::MetadataExt;
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let name = client.name(&image, 2);
    let mounts = rig.snapshotter().view("view", &name, Labels::new()).await.unwrap();
    let trees = rig.layout().trees();
    let connection =
        tokio::task::spawn_blocking(move || std::fs::metadata(trees).unwrap().dev()).await.unwrap();
    let control = tempfile::tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", control.path(), "fusectl", flags, None).unwrap();
    let aborted =
        std::fs::write(control.path().join(format!("{}/abort", rustix::fs::minor(connection))), "1");
    rustix::mount::unmount(control.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    aborted.unwrap();
    // The threads that serve it take a moment to notice.
    let served = rig.layout().fs(rig.snapshotter().store.get_any(&name).unwrap().id);
    for attempt in 0.. {
        assert_eq!(rig.snapshotter().mounts("view").await.unwrap(), mounts);
        let path = served.join("a/one");
        if tokio::task::spawn_blocking(move || path.exists()).await.unwrap() {
            break;
        }
        assert!(attempt < 500, "the tree does not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}

/// A layer whose record is lost would otherwise be an empty directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_an_error_and_loses_nothing() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let snapshotter = rig.snapshotter();
    let name = client.name(&image, 0);
    let record = snapshotter.store.get_any(&name).unwrap().record.unwrap();
    snapshotter.store.set_record(&name, b"{}").unwrap();
    let refused = snapshotter.view("view", &client.name(&image, 2), Labels::new()).await.unwrap_err();
    assert!(refused.to_string().contains("not known any more"), "{refused}");
    assert!(snapshotter.cleanup().await.is_err());
    assert_eq!(snapshotter.layers.all().len(), 3);
    snapshotter.store.set_record(&name, &record).unwrap();
    snapshotter.cleanup().await.unwrap();
    let mounts = snapshotter.view("view", &client.name(&image, 2), Labels::new()).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}
