//! Which index a snapshotter finds for an image.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use registry::{Client, ClientConfig, Descriptor, Digest, Reference, RetryPolicy};
use soci_index::discover::{self, DiscoverError, FoundIndex, Nearby, NothingNearby, Wanted};
use soci_index::manifest::{INDEX_DIGEST, INDEX_V1, IndexManifest, IndexVersion};
use soci_index::oci::{IMAGE_MANIFEST, ImageManifest};
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder};
use testdata::registry::{Fault, TestRegistry};

fn image(annotation: Option<&Digest>) -> Image {
    let mut builder = ImageBuilder::new();
    for name in ["a", "b"] {
        let mut layer = LayerBuilder::new(Compression::GZIP);
        layer.add(Entry::file(name, name));
        builder = builder.layer(layer.finish());
    }
    if let Some(digest) = annotation {
        builder = builder.annotation(INDEX_DIGEST, digest.as_str());
    }
    builder.build()
}

/// An index over the first `layers` layers of `image`; `span_size` makes it another one.
fn index(
    image: &Image,
    version: IndexVersion,
    layers: usize,
    span_size: u64,
    subject: &str,
) -> IndexManifest {
    let ztocs = image.layers()[..layers]
        .iter()
        .map(|layer| {
            let layer = Descriptor::new("t", layer.digest.parse().unwrap(), layer.size);
            IndexManifest::ztoc_descriptor(Digest::of(b"ztoc"), 4, &layer, span_size, false)
        })
        .collect();
    let subject = Descriptor::new(IMAGE_MANIFEST, subject.parse().unwrap(), 1);
    IndexManifest::new(version, ztocs, Some(&subject), "t")
}

fn put(registry: &TestRegistry, index: &IndexManifest) -> Digest {
    let bytes = index.encode();
    let digest = Digest::of(&bytes);
    registry.put_manifest("app", digest.as_str(), IMAGE_MANIFEST, bytes);
    digest
}

async fn find(
    registry: &TestRegistry,
    explicit: Option<&Digest>,
) -> Result<Option<FoundIndex>, DiscoverError> {
    find_with(registry, Wanted::explicit(explicit.cloned()), &NothingNearby).await
}

async fn find_with(
    registry: &TestRegistry,
    wanted: Wanted,
    nearby: &dyn Nearby,
) -> Result<Option<FoundIndex>, DiscoverError> {
    let reference: Reference = format!("{}/app:v1", registry.host()).parse().unwrap();
    let retry = RetryPolicy::none();
    let client = Client::new(ClientConfig { retry, ..ClientConfig::default() }).unwrap();
    let manifest = client.manifest(&reference).await.unwrap();
    let image = ImageManifest::parse(&manifest.bytes).unwrap();
    discover::find_index(&client, reference.repository(), &manifest.descriptor(), &image, &wanted, nearby)
        .await
}

#[tokio::test]
async fn an_image_without_index_has_none() {
    let registry = TestRegistry::builder().start().await;
    image(None).put_into(&registry, "app", "v1");
    assert_eq!(find(&registry, None).await.unwrap(), None);
    registry.inject(Fault::status(500).path("referrers"));
    assert!(matches!(find(&registry, None).await, Err(DiscoverError::Registry(_))));
}

struct AtHand(bytes::Bytes);

#[async_trait::async_trait]
impl Nearby for AtHand {
    async fn get(&self, digest: &Digest, _limit: u64) -> Option<bytes::Bytes> {
        (Digest::of(&self.0) == *digest).then(|| self.0.clone())
    }
}

#[tokio::test]
async fn an_index_at_hand_is_not_asked_of_the_registry() {
    let registry = TestRegistry::builder().start().await;
    let stranger = image(None);
    let index = index(&stranger, IndexVersion::V2, 2, 1, stranger.digest());
    let digest = Digest::of(&index.encode());
    image(Some(&digest)).put_into(&registry, "app", "v1");
    // The registry does not have it.
    assert_eq!(find(&registry, None).await.unwrap(), None);
    let found = find_with(&registry, Wanted::default(), &AtHand(index.encode())).await.unwrap().unwrap();
    assert_eq!((found.digest, found.bound), (digest, true));
}

#[tokio::test]
async fn a_version_that_is_not_wanted_is_not_taken() {
    let registry = TestRegistry::builder().start().await;
    let image = image(None);
    image.put_into(&registry, "app", "v1");
    put(&registry, &index(&image, IndexVersion::V1, 2, 1, image.digest()));
    let wanted = |v1| find_with(&registry, Wanted { v1, ..Wanted::default() }, &NothingNearby);
    assert!(wanted(true).await.unwrap().is_some());
    assert_eq!(wanted(false).await.unwrap(), None);
}

#[tokio::test]
async fn of_several_referrers_the_one_that_covers_most_is_taken() {
    let registry = TestRegistry::builder().start().await;
    let image = image(None);
    image.put_into(&registry, "app", "v1");
    put(&registry, &index(&image, IndexVersion::V1, 1, 1, image.digest()));
    let full = [2, 3, 4]
        .map(|span_size| put(&registry, &index(&image, IndexVersion::V1, 2, span_size, image.digest())));
    // Says that it is an index and is none.
    let junk = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE_MANIFEST}","config":{{"mediaType":"{INDEX_V1}","digest":"{0}","size":2}},"layers":[{{}}],"subject":{{"mediaType":"{IMAGE_MANIFEST}","digest":"{1}","size":1}}}}"#,
        Digest::of(b"{}"),
        image.digest()
    );
    registry.put_manifest("app", Digest::of(junk.as_bytes()).as_str(), IMAGE_MANIFEST, junk.clone());
    let found = find(&registry, None).await.unwrap().unwrap();
    assert_eq!(found.digest, *full.iter().min().unwrap());
    assert_eq!((found.covered, found.bound), (2, true));
}

#[tokio::test]
async fn a_fallback_list_that_lies_about_its_entries_is_not_believed() {
    let registry = TestRegistry::builder().referrers_api(false).start().await;
    let image = image(None);
    image.put_into(&registry, "app", "v1");
    let stranger =
        put(&registry, &index(&image, IndexVersion::V1, 2, 9, Digest::of(b"other image").as_str()));
    let gone = Digest::of(b"gone");
    let entry = |digest: &Digest| {
        format!(
            r#"{{"mediaType":"{IMAGE_MANIFEST}","digest":"{digest}","size":5,"artifactType":"{INDEX_V1}"}}"#
        )
    };
    let list = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},{}]}}"#,
        entry(&stranger),
        entry(&gone)
    );
    let tag = image.digest().replace(':', "-");
    registry.put_manifest("app", &tag, "application/vnd.oci.image.index.v1+json", list);
    assert_eq!(find(&registry, None).await.unwrap(), None);
    // Asked for by its digest it is taken, and said to be a stranger.
    let found = find(&registry, Some(&stranger)).await.unwrap().unwrap();
    assert_eq!((found.covered, found.bound), (2, false));
    assert!(find(&registry, Some(&gone)).await.is_err());
    let manifest: Digest = image.digest().parse().unwrap();
    assert!(matches!(find(&registry, Some(&manifest)).await, Err(DiscoverError::NotAnIndex { .. })));
}

#[tokio::test]
async fn a_version_2_index_bound_to_the_image_wins() {
    let registry = TestRegistry::builder().start().await;
    // The annotation changes the image manifest but not its layers.
    let v2 = index(&image(None), IndexVersion::V2, 1, 1, Digest::of(b"unused").as_str());
    let digest = Digest::of(&v2.encode());
    let image = image(Some(&digest));
    image.put_into(&registry, "app", "v1");
    let v1 = put(&registry, &index(&image, IndexVersion::V1, 2, 1, image.digest()));
    // Dangling: the next way is tried.
    assert_eq!(find(&registry, None).await.unwrap().unwrap().digest, v1);
    put(&registry, &v2);
    let found = find(&registry, None).await.unwrap().unwrap();
    assert_eq!((found.digest, found.manifest.version, found.bound), (digest, IndexVersion::V2, true));
}
