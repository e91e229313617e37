//! What a container sees, however the layers are served.

use testdata::image::{Entry, Image, Layer};

use super::*;
use crate::snapshotter::store::Labels;

/// Layers in which everything happens that layers can do to each other, but for links across them.
fn layers() -> Vec<Layer> {
    vec![
        layer([
            Entry::dir("./").mode(0o751).owner(3, 4),
            Entry::dir("etc").mode(0o700).owner(1000, 1001).mtime(1_600_000_000, 5).xattr("user.k", "v"),
            Entry::file("etc/config", "lower").mode(0o640),
            Entry::file("etc/removed", "gone"),
            Entry::dir("opaque"),
            Entry::file("opaque/hidden", "hidden"),
            Entry::dir("becomes-file"),
            Entry::file("becomes-file/inside", "1"),
            Entry::file("becomes-directory", "2"),
            Entry::file("large", "x".repeat(200_000)),
            Entry::hard_link("same", "large"),
            Entry::char_device("null", 1, 3).mode(0o666),
            Entry::fifo("pipe"),
            Entry::symlink("link", "/etc/config"),
        ]),
        layer([
            Entry::file("etc/config", "upper").xattr("user.comment", "upper"),
            Entry::whiteout("etc/removed"),
            Entry::opaque("opaque"),
            Entry::file("opaque/visible", "visible"),
            Entry::file("becomes-file", "3"),
            Entry::dir("becomes-directory").mode(0o711),
            Entry::file("becomes-directory/inside", "4"),
        ]),
        layer([
            Entry::dir("etc").mode(0o750).owner(0, 7).mtime(1_650_000_000, 0),
            Entry::file("etc/removed", "again"),
            Entry::whiteout("pipe"),
            Entry::file("implied/parent/file", "5"),
        ]),
        layer([
            // Its directories are only implied: they keep what the layers below say of them.
            Entry::file("etc/added", "added"),
            Entry::file("opaque/third", "third"),
            Entry::whiteout("becomes-directory"),
        ]),
    ]
}

async fn check(image: &Image, indexed: &[usize], modes: &[&str]) {
    let Some(rig) = Rig::new().await else { return };
    rig.push_indexed(image, indexed);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(image).await, modes);
    let mounts = client.view(image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
    // Writable, too; and the upper directory has the root directory's owner and mode.
    let (_, mounts) = client.container(image, Labels::new()).await.unwrap();
    let mounted = rig.mount(&mounts).await;
    mounted.assert_shows_writable(image.layers()).await;
    tokio::fs::write(mounted.0.join("new"), "new").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lazy_and_unpacked_layers_stack_in_every_order() {
    let image = image(layers());
    for mask in 1..16_usize {
        let indexed: Vec<_> = (0..4).filter(|layer| mask & (1 << layer) != 0).collect();
        let modes: Vec<_> =
            (0..4).map(|layer| if indexed.contains(&layer) { "lazy" } else { "eager" }).collect();
        check(&image, &indexed, &modes).await;
    }
}

/// A layer that opens the root anew hides all below it, which overlayfs does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_root_hides_all_below() {
    let mut all = layers();
    all.insert(2, layer([Entry::opaque("."), Entry::file("fresh", "fresh"), Entry::dir("etc")]));
    let image = image(all);
    check(&image, &[0, 1, 2, 3, 4], &["lazy"; 5]).await;
    check(&image, &[0, 1, 3, 4], &["lazy", "lazy", "eager", "lazy", "lazy"]).await;
    check(&image, &[0, 2, 4], &["lazy", "eager", "lazy", "eager", "lazy"]).await;
    check(&image, &[1, 3], &["eager", "lazy", "eager", "lazy", "eager"]).await;
}

/// The lowest layer has nothing to hide, and what it says of that must not show, neither by name nor in a listing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whiteouts_in_the_lowest_layer_do_not_show() {
    let lowest = || {
        layer([
            Entry::whiteout("nothing"),
            Entry::dir("etc"),
            Entry::whiteout("etc/nothing"),
            Entry::file("etc/something", "1"),
            Entry::dir("opaque"),
            Entry::opaque("opaque"),
            Entry::file("opaque/2", "2"),
        ])
    };
    let alone = image([lowest()]);
    check(&alone, &[0], &["lazy"]).await;
    let two = image([lowest(), layer([Entry::file("top", "top")])]);
    check(&two, &[0, 1], &["lazy", "lazy"]).await;
    check(&two, &[1], &["eager", "lazy"]).await;
    check(&two, &[0], &["lazy", "eager"]).await;
    let always = Rig::with(|options| options.settings.pull.unpack_without_index = true).await;
    let Some(rig) = always else { return };
    rig.push(&alone);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&alone).await, ["eager"]);
    let mounts = client.view(&alone).await.unwrap();
    rig.mount(&mounts).await.assert_shows(alone.layers()).await;
    let (_, mounts) = client.container(&alone, Labels::new()).await.unwrap();
    rig.mount(&mounts).await.assert_shows_writable(alone.layers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hard_links_to_layers_below_work_within_a_run() {
    let image = image([
        layer([Entry::dir("a"), Entry::file("a/file", "content")]),
        layer([Entry::file("other", "other")]),
        layer([Entry::dir("b"), Entry::hard_link("b/link", "a/file")]),
    ]);
    check(&image, &[0, 1, 2], &["lazy"; 3]).await;
}
