//! Several at once.

use std::time::Duration;

use testdata::registry::{Action, Fault};

use super::*;
use crate::image::stacking::StackPart;
use crate::snapshotter::labels;
use crate::snapshotter::layer_runs::parts;
use crate::snapshotter::prepare::Prepared;

/// Two clients pull the same image at the same time; each gets all of it, whoever unpacks.
async fn pull_together(namespaces: [&str; 2], indexed: &[usize]) {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, indexed);
    // Long enough for both to wait for the same layer.
    let lowest = format!("/blobs/{}", image.layers()[0].digest);
    rig.registry.inject(Fault::times(2, Action::Stall(Duration::from_millis(200))).path(&lowest));
    let pulls = namespaces.map(|namespace| {
        let (mut client, image) = (Client::new(&rig, namespace), image.clone());
        tokio::spawn(async move {
            let modes = client.pull(&image).await;
            (client, modes)
        })
    });
    let expected: Vec<_> =
        (0..3).map(|layer| if indexed.contains(&layer) { "lazy" } else { "eager" }).collect();
    let mut clients = Vec::new();
    for pull in pulls {
        let (client, modes) = pull.await.unwrap();
        assert_eq!(modes, expected);
        let mounts = client.view(&image).await.unwrap();
        rig.mount(&mounts).await.assert_shows(image.layers()).await;
        clients.push(client);
    }
    // Once each.
    let committed = rig.snapshotter().list(&["kind==committed".to_owned()]).await.unwrap();
    assert_eq!(committed.len(), 3, "{committed:?}");
    clients[0].remove_all().await;
    rig.snapshotter().cleanup().await.unwrap();
    rig.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_of_one_namespace() {
    pull_together(["test", "test"], &[1]).await;
    pull_together(["test", "test"], &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_namespaces() {
    pull_together(["one", "two"], &[1]).await;
    pull_together(["one", "two"], &[0, 1, 2]).await;
}

/// A layer over another snapshot of the layer below is another snapshot, and containerd finds each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_layer_over_other_parents() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    let index = rig.push_indexed(&image, &[1, 2]);
    let mut clients = Vec::new();
    for namespace in ["one", "two"] {
        let mut client = Client::new(&rig, namespace);
        // Each of them unpacks the lowest layer itself, as without an index.
        client.extra.insert(labels::INDEX_DIGEST.to_owned(), Digest::of(b"nothing").to_string());
        client.prepare_layer(&image, 0).await.unwrap();
        client.extra.insert(labels::INDEX_DIGEST.to_owned(), index.to_string());
        for position in [1, 2] {
            let prepared = client.prepare_layer(&image, position).await;
            assert!(matches!(prepared, Ok(Prepared::Ready(_))), "{prepared:?}");
        }
        let mounts = client.view(&image).await.unwrap();
        rig.mount(&mounts).await.assert_shows(image.layers()).await;
        clients.push(client);
    }
    let [one, two] = &mut clients[..] else { panic!() };
    assert_ne!(one.name(&image, 2), two.name(&image, 2));
    one.remove_all().await;
    rig.snapshotter().cleanup().await.unwrap();
    rig.assert_empty().await;
}

/// A snapshot that is removed and cleaned up before its tree is mounted leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_comes_too_late_goes_again() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let snapshotter = rig.snapshotter();
    // What a task that mounts the tree has read from the store.
    let top = client.name(&image, 2);
    let read = snapshotter.store(move |store| store.get_any(&top)).await.unwrap();
    let Some(StackPart::Tree(run)) = parts(&read.as_chain()).unwrap().pop() else { panic!() };
    eventually("the tree is mounted ahead", || snapshotter.trees.len() == 1).await;
    let opened: Vec<_> = snapshotter.layers.all();
    client.remove_all().await;
    snapshotter.cleanup().await.unwrap();
    assert_eq!(opened.len(), 3);
    drop(opened);
    // The clean-up has spared the layers, which were in use: the tree could still be made.
    let error = snapshotter.trees.ensure(&run, &[]).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    snapshotter.cleanup().await.unwrap();
    rig.assert_empty().await;
}

/// What somebody else has unmounted is mounted again; an empty directory would be an image without its files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_was_unmounted_comes_back() {
    let Some(rig) = Rig::new().await else { return };
    let image = simple();
    rig.push_indexed(&image, &[0, 1, 2]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let mounts = client.view(&image).await.unwrap();
    let own: Vec<_> = mounts_below(&rig.layout().mounts());
    for path in own.iter().filter(|path| path.ends_with("fs")) {
        detach(path);
    }
    let again = client.view(&image).await.unwrap();
    assert_eq!(again, mounts);
    assert_eq!(mounts_below(&rig.layout().mounts()).len(), own.len(), "{own:?} {again:?}");
    rig.mount(&again).await.assert_shows(image.layers()).await;
}

/// Many images come and go at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_and_removals_at_once_leave_nothing() {
    let Some(rig) = Rig::new().await else { return };
    let images: Vec<_> = (0..4)
        .map(|number| {
            let own = layer([testdata::image::Entry::file(format!("own-{number}"), "own")]);
            image(simple().layers().iter().cloned().chain([own]))
        })
        .collect();
    for image in &images {
        rig.push_indexed(image, &[0, 2, 3]);
    }
    let cleaning = tokio::spawn(Arc::clone(rig.snapshotter()).keep_clean());
    let clients = images.iter().enumerate().map(|(number, image)| {
        let (client, image) = (Client::new(&rig, &format!("ns{number}")), image.clone());
        tokio::spawn(async move {
            for _ in 0..5 {
                let mut client = client.clone();
                client.pull(&image).await;
                let (key, mounts) = client.container(&image, Default::default()).await.unwrap();
                assert_eq!(mounts[0].kind, "overlay");
                client.remove_own(&image, &key).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    cleaning.abort();
    Client::new(&rig, "test").remove_all().await;
    rig.snapshotter().cleanup().await.unwrap();
    rig.assert_empty().await;
}
