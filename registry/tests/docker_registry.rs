//! Against the real thing: Debian's `docker-registry` 2.8, which has no referrers API.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use bytes::Bytes;
use common::{all, client, client_as, noise, read};
use futures::StreamExt;
use registry::{Descriptor, Digest, Error, Repository, media_types};
use serde_json::json;
use testdata::docker_registry::{CREDENTIALS, DockerRegistry};

async fn round_trip(client: &registry::Client, host: &str) {
    let repository = Repository::new(host, "team/app").unwrap();
    let layer = noise(3 << 20);
    let config = b"{}".to_vec();
    for data in [&layer, &config] {
        let source = || {
            let pieces: Vec<_> = data.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            futures::future::ready(Ok(futures::stream::iter(pieces).boxed()))
        };
        let digest = Digest::of(data);
        assert!(client.push_blob(&repository, &digest, data.len() as u64, source).await.unwrap());
        assert!(!client.push_blob(&repository, &digest, data.len() as u64, source).await.unwrap());
        assert!(client.blob_exists(&repository, &digest).await.unwrap());
    }
    let layer_descriptor = Descriptor::of(media_types::OCI_LAYER_GZIP, &layer);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_types::OCI_MANIFEST,
        "config": Descriptor::of(media_types::OCI_CONFIG, &config), "layers": [layer_descriptor],
    });
    let bytes = Bytes::from(manifest.to_string());
    let pushed =
        client.push_manifest(&repository, "v1", media_types::OCI_MANIFEST, bytes.clone()).await.unwrap();
    assert!(!pushed.subject_accepted);
    for which in ["v1", pushed.digest.as_str()] {
        let manifest = client.manifest_in(&repository, which).await.unwrap();
        assert_eq!(
            (manifest.bytes, manifest.media_type.as_str()),
            (bytes.clone(), media_types::OCI_MANIFEST)
        );
        let head = client.head_manifest(&repository, which).await.unwrap().unwrap();
        assert_eq!((head.size, head.digest), (bytes.len() as u64, pushed.digest.clone()));
    }

    let blob = client.blob_reader(&repository, layer_descriptor.digest.clone(), layer_descriptor.size);
    for range in [0..1, 5..100_000, 3_000_000..3 << 20] {
        let got = read(&blob, range.clone()).await.unwrap();
        assert_eq!(got, layer[range.start as usize..range.end as usize]);
    }
    let reads = (0..16_u64).map(|i| read(&blob, i * 1000..i * 1000 + 500));
    for got in futures::future::join_all(reads).await {
        assert_eq!(got.unwrap().len(), 500);
    }
    assert!(!blob.range_ignored());
    let stream = client.blob_stream(&repository, &layer_descriptor).await.unwrap();
    assert_eq!(all(stream).await.unwrap(), layer);
    assert_eq!(client.blob_bytes(&repository, &layer_descriptor, 4 << 20).await.unwrap(), layer);

    assert!(client.referrers(&repository, &pushed.digest, None).await.unwrap().is_empty());
    let mut listed = Vec::new();
    for i in 0..3 {
        let index = json!({
            "schemaVersion": 2, "mediaType": media_types::OCI_MANIFEST, "artifactType": "x/y",
            "config": Descriptor::of(media_types::OCI_EMPTY, &config), "layers": [],
            "subject": Descriptor::of(media_types::OCI_MANIFEST, &bytes), "annotations": {"n": i.to_string()},
        });
        let index = Bytes::from(index.to_string());
        let mut descriptor = Descriptor::of(media_types::OCI_MANIFEST, &index);
        descriptor.artifact_type = Some("x/y".to_owned());
        let push =
            client.push_referrer(&repository, index, media_types::OCI_MANIFEST, &descriptor, &pushed.digest);
        push.await.unwrap();
        listed.push(descriptor);
    }
    assert_eq!(client.referrers(&repository, &pushed.digest, Some("x/y")).await.unwrap(), listed);
    assert!(client.referrers(&repository, &pushed.digest, Some("z")).await.unwrap().is_empty());
    assert!(client.manifest_in(&repository, "none").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn everything_without_a_password() {
    let Some(server) = DockerRegistry::start() else { return };
    round_trip(&client(), server.host()).await;
}

#[tokio::test]
async fn everything_with_a_password() {
    let Some(server) = DockerRegistry::with_password() else { return };
    round_trip(&client_as("me", CREDENTIALS.1), server.host()).await;
    let repository = Repository::new(server.host(), "team/app").unwrap();
    for client in [client(), client_as("me", "wrong")] {
        let error = client.manifest_in(&repository, "v1").await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        common::assert_clean(&error, &["wrong", CREDENTIALS.1]);
    }
}
