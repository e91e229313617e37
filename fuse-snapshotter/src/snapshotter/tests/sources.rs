//! Images that share layers, and repositories that go away.

use testdata::image::{Compression, Entry, LayerBuilder, Texture};
use testdata::registry::{Action, Fault};

use std::sync::Mutex;

use async_trait::async_trait;
use soci_index::discover::Nearby;

use super::*;
use crate::image::{LocalContent, OtherSource};
use crate::snapshotter::record::Record;
use crate::snapshotter::store::Labels;

/// What the registry says of a repository that was deleted.
fn gone() -> Fault {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let body = r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#;
    Fault::always(Action::Status(404, headers, body.into()))
}

/// Two shared layers, compressed like this, and one of its own.
fn sharing(level: u32, own: &str) -> Image {
    let shared = [
        vec![Entry::dir("a"), Entry::made("a/one", Texture::Random, 1, 90_000)],
        vec![Entry::dir("b"), Entry::made("b/two", Texture::Random, 2, 200_000)],
    ];
    let compressed = |entries: Vec<Entry>| {
        let mut builder = LayerBuilder::new(Compression::Gzip(level));
        for entry in entries {
            builder.add(entry);
        }
        builder.finish()
    };
    image(shared.into_iter().chain([vec![Entry::file(own, own)]]).map(compressed))
}

async fn push(registry: &TestRegistry, image: &Image) {
    image.put_into(registry, REPOSITORY, "1");
    Rig::index_in(registry, image, &[0, 1, 2], |position| position);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_layers_are_read_from_the_repository_that_is_left_also_after_a_restart() {
    // The very same layers, and the same contents compressed anew: other digests, but equal chain IDs.
    for (level, restarts) in [(6, false), (6, true), (1, false), (1, true)] {
        let Some(mut rig) = Rig::new().await else { return };
        let other = TestRegistry::builder().start().await;
        let (first, second) = (sharing(6, "first"), sharing(level, "second"));
        assert_eq!(first.layers()[1].diff_id, second.layers()[1].diff_id);
        push(&rig.registry, &first).await;
        push(&other, &second).await;
        let mut client = Client::new(&rig, "test");
        assert_eq!(client.pull(&first).await, ["lazy"; 3]);
        let mut later = client.at(&other);
        assert_eq!(later.pull(&second).await, ["lazy"; 3]);
        let name = later.name(&second, 2);
        let records: Vec<_> = (0..2).map(|position| client.record(&first, position).unwrap()).collect();
        for (position, record) in records.iter().enumerate() {
            let there = &second.layers()[position];
            let expected = OtherSource {
                repository: format!("{}/{REPOSITORY}", other.host()),
                layer: there.digest.parse().unwrap(),
                size: there.size,
            };
            assert_eq!(record.others, [expected]);
        }
        drop((client, later));
        if restarts {
            rig.restart().await;
        }
        rig.registry.inject(gone());
        let mounts = rig.snapshotter().view("view", &name, Labels::new()).await.unwrap();
        rig.mount(&mounts).await.assert_shows(second.layers()).await;
    }
}

/// containerd may ask for a layer that is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_all_of_whose_layers_are_there_adds_its_repository() {
    let Some(rig) = Rig::new().await else { return };
    let other = TestRegistry::builder().start().await;
    let image = sharing(6, "own");
    push(&rig.registry, &image).await;
    push(&other, &image).await;
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    // Twice, under two names: it counts once.
    for _ in 0..2 {
        client.at(&other).pull(&image).await;
    }
    for position in 0..3 {
        assert_eq!(client.record(&image, position).unwrap().others.len(), 1);
    }
    rig.registry.inject(gone());
    let mounts = client.view(&image).await.unwrap();
    rig.mount(&mounts).await.assert_shows(image.layers()).await;
}

/// The images of a containerd, by their names.
#[derive(Debug, Default)]
struct ImageFacts(Mutex<Vec<(String, Image)>>);

#[async_trait]
impl Nearby for ImageFacts {
    async fn get(&self, digest: &Digest, _limit: u64) -> Option<bytes::Bytes> {
        let known = self.0.lock().unwrap();
        let mut all = known.iter().flat_map(|(_, image)| [image.manifest(), image.config()]);
        all.find(|bytes| Digest::of(bytes) == *digest)
    }
}

#[async_trait]
impl LocalContent for ImageFacts {
    async fn images(&self) -> Vec<(String, ::registry::Descriptor)> {
        let known = self.0.lock().unwrap();
        let target = |image: &Image| {
            let size = image.manifest().len() as u64;
            ::registry::Descriptor::new(image.media_type(), image.digest().parse().unwrap(), size)
        };
        known.iter().map(|(name, image)| (name.clone(), target(image))).collect()
    }
}

/// containerd asks nothing for such an image, whether its layers are the same or compressed anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_was_never_asked_for_is_found_when_it_is_needed() {
    for level in [6, 1] {
        let known = Arc::<ImageFacts>::default();
        let content = Arc::clone(&known);
        let Some(rig) =
            Rig::with(move |options| options.content = Arc::new(move |_| vec![Arc::clone(&content) as _]))
                .await
        else {
            return;
        };
        let other = TestRegistry::builder().start().await;
        let (image, copy) = (sharing(6, "own"), sharing(level, "own"));
        push(&rig.registry, &image).await;
        push(&other, &copy).await;
        let mut client = Client::new(&rig, "test");
        assert_eq!(client.pull(&image).await, ["lazy"; 3]);
        let entry = (format!("{}/{REPOSITORY}:1", other.host()), copy);
        known.0.lock().unwrap().extend([("not a reference".to_owned(), image.clone()), entry]);
        rig.registry.inject(gone());
        let mounts = client.view(&image).await.unwrap();
        rig.mount(&mounts).await.assert_shows(image.layers()).await;
    }
}

/// Whoever builds an image says what its chain IDs are. Nobody else's container reads his contents for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_lies_about_its_chain_ids_lends_no_contents_to_others() {
    let Some(rig) = Rig::new().await else { return };
    let other = TestRegistry::builder().start().await;
    let honest = sharing(6, "first");
    push(&rig.registry, &honest).await;
    let mut client = Client::new(&rig, "test");
    client.pull(&honest).await;
    let liar = image([layer([Entry::dir("a"), Entry::made("a/one", Texture::Random, 9, 90_000)])]);
    let evil = OtherSource {
        repository: format!("{}/{REPOSITORY}", other.host()),
        layer: liar.layers()[0].digest.parse().unwrap(),
        size: liar.layers()[0].size,
    };
    push_layers(&other, &liar);
    let name = client.name(&honest, 0);
    let mut record = client.record(&honest, 0).unwrap();
    assert!(record.add_source(evil));
    rig.snapshotter().store.set_record(&name, &record.encode().unwrap()).unwrap();
    rig.registry.inject(gone());
    let mounts = rig.snapshotter().view("view", &name, Labels::new()).await.unwrap();
    let mounted = rig.mount(&mounts).await;
    mounted.read("a/one").await.unwrap_err();
    // It was tried.
    assert!(!other.requests().is_empty());
}

fn push_layers(registry: &TestRegistry, image: &Image) {
    image.put_into(registry, REPOSITORY, "1");
}

#[test]
fn a_record_remembers_few_sources_and_the_records_of_before_are_read() {
    let digest = Digest::of(b"layer");
    let old = format!(
        r#"{{"image":"host.example/own:1","manifest":"{digest}","layer":"{digest}","size":1,
            "mode":{{"mode":"lazy","ztoc":"{digest}","index":"{digest}"}}}}"#
    );
    let mut record = Record::decode(old.as_bytes(), "a test").unwrap();
    assert_eq!(record.others, []);
    let other = |repository: String| OtherSource { repository, layer: digest.clone(), size: 1 };
    assert!(!record.add_source(other("host.example/own".to_owned())));
    for number in 0..20 {
        assert!(record.add_source(other(format!("host.example/{number}"))));
        assert!(!record.add_source(other(format!("host.example/{number}"))));
    }
    let names: Vec<_> = record.others.iter().map(|other| other.repository.as_str()).collect();
    assert_eq!(
        names,
        [
            "host.example/13",
            "host.example/14",
            "host.example/15",
            "host.example/16",
            "host.example/17",
            "host.example/18",
            "host.example/19"
        ]
    );
    assert_eq!(Record::decode(&record.encode().unwrap(), "a test").unwrap(), record);
}
