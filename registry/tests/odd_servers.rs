//! Servers that are stricter than the specification, and answers that are odder than it: what is asked for decides, not
//! how it was wrapped.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{SECRET, all, client, client_as, noise, put, read, repository};
use futures::StreamExt;
use registry::{ByteStream, Client, ClientConfig, Descriptor, Digest, Repository, media_types};
use serde_json::{Value, json};
use testdata::registry::{Action, Auth, Expired, Fault, Redirect, TestRegistry};

fn source(data: &[u8]) -> impl Fn() -> futures::future::Ready<registry::Result<ByteStream>> + use<> {
    let data = Bytes::copy_from_slice(data);
    move || futures::future::ready(Ok(futures::stream::iter([Ok(data.clone())]).boxed()))
}

#[tokio::test]
async fn every_request_that_may_have_a_body_says_how_long_it_is() {
    let registry = TestRegistry::builder().auth(Auth::bearer("me", SECRET)).start().await;
    let client = client_as("me", SECRET);
    let (to, from) = (repository(&registry), Repository::new(&registry.host(), "c/d").unwrap());
    for data in [Vec::new(), noise(100_000)] {
        let digest = Digest::of(&data);
        // Neither mounted nor finished: the upload that was opened for it is cancelled.
        assert!(!client.mount_blob(&to, &digest, &from).await.unwrap());
        assert!(client.push_blob(&to, &digest, data.len() as u64, source(&data)).await.unwrap());
        assert!(client.mount_blob(&from, &digest, &to).await.unwrap());
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": []}).to_string();
    client.push_manifest(&to, "t", media_types::OCI_INDEX, index.into()).await.unwrap();
    let mut methods = Vec::new();
    for request in registry.requests() {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            assert!(request.header("content-length").is_some(), "{request:?}");
            assert_eq!(request.header("transfer-encoding"), None, "{request:?}");
            methods.push(request.method);
        }
    }
    for method in ["POST", "PUT", "DELETE"] {
        assert!(methods.iter().any(|m| m == method), "{method}");
    }
}

#[tokio::test]
async fn relative_locations_of_uploads_keep_their_query() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(1000);
    for location in
        ["../../blobs/uploads/x?_state=a%2Bb%3D&y=1", "/v2/a/b/blobs/uploads/x?_state=a%2Bb%3D&y=1"]
    {
        registry.clear_requests();
        let headers = vec![("Location".to_owned(), location.to_owned())];
        registry.inject(Fault::once(Action::Status(202, headers, "".into())).method("POST"));
        registry.inject(Fault::once(Action::Status(201, vec![], "".into())).method("PUT"));
        let digest = Digest::of(&data);
        assert!(client().push_blob(&repository(&registry), &digest, 1000, source(&data)).await.unwrap());
        let put = registry.requests().pop().unwrap();
        assert_eq!(put.path, "/v2/a/b/blobs/uploads/x");
        assert!(put.query.unwrap().starts_with("_state=a%2Bb%3D&y=1&digest=sha256"));
    }
}

/// What servers answer to HEAD for what they have.
fn heads(registry: &TestRegistry) -> Vec<Action> {
    let status = |status| Action::Status(status, vec![], "".into());
    let storage = format!("{}/elsewhere?sig=get-only", registry.url());
    let slow = vec![("Retry-After".to_owned(), "30".to_owned())];
    let mut all: Vec<_> = [400, 403, 405, 500, 501, 503].into_iter().map(status).collect();
    all.extend([Action::DropConnection, Action::Redirect(storage), Action::Status(429, slow, "".into())]);
    all
}

#[tokio::test]
async fn head_decides_nothing_that_an_upload_decides() {
    let registry = TestRegistry::builder().start().await;
    let (client, repo, data) = (client(), repository(&registry), noise(1000));
    let digest = Digest::of(&data);
    for action in heads(&registry) {
        let begun = Instant::now();
        registry.inject(Fault::always(action.clone()).method("HEAD"));
        assert!(client.push_blob(&repo, &digest, 1000, source(&data)).await.unwrap(), "{action:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{action:?} took too long");
        registry.clear_faults();
    }
    // Whether it is there is all that counts: neither length nor digest.
    registry.inject(Fault::always(Action::Status(200, vec![], "".into())).method("HEAD"));
    assert!(!client.push_blob(&repo, &digest, 1000, source(&data)).await.unwrap());
    assert!(client.blob_exists(&repo, &digest).await.unwrap());
}

#[tokio::test]
async fn head_decides_nothing_that_reading_the_manifest_decides() {
    let registry = TestRegistry::builder().start().await;
    let (client, repo) = (client(), repository(&registry));
    let there: Digest = registry.put_manifest("a/b", "t", media_types::OCI_INDEX, "{}").parse().unwrap();
    let missing = Digest::of(b"missing");
    for action in heads(&registry) {
        registry.inject(Fault::always(action.clone()).method("HEAD"));
        assert!(client.manifest_exists(&repo, &there).await.unwrap(), "{action:?}");
        assert!(!client.manifest_exists(&repo, &missing).await.unwrap(), "{action:?}");
        registry.clear_faults();
    }
    registry.clear_requests();
    assert!(client.manifest_exists(&repo, &there).await.unwrap());
    assert!(!client.manifest_exists(&repo, &missing).await.unwrap());
    assert!(registry.requests().iter().all(|request| request.method == "HEAD"));
    registry.inject(Fault::always(Action::Status(200, vec![], "".into())).method("HEAD"));
    assert!(client.manifest_exists(&repo, &there).await.unwrap());
}

#[tokio::test]
async fn labels_of_an_encoding_are_ignored_where_the_bytes_are_right() {
    for redirect in [false, true] {
        let mut builder = TestRegistry::builder();
        if redirect {
            builder = builder.redirect_blobs(Redirect { expired: Expired::Forbidden, ..Redirect::default() });
        }
        let registry = builder.start().await;
        for label in ["gzip", "x-gzip", "zstd", "aws-chunked", "identity"] {
            registry.clear_faults();
            registry.inject(Fault::always(Action::Header("content-encoding", label)));
            let (client, repo, data) = (client(), repository(&registry), noise(100_000));
            let descriptor = Descriptor::new("x", put(&registry, &data), data.len() as u64);
            let blob = client.blob_reader(&repo, descriptor.digest.clone(), descriptor.size);
            assert_eq!(read(&blob, 1000..2000).await.unwrap(), data[1000..2000], "{label}");
            assert_eq!(client.blob_bytes(&repo, &descriptor, 1 << 20).await.unwrap(), data, "{label}");
            let stream = client.blob_stream(&repo, &descriptor).await.unwrap();
            assert_eq!(all(stream).await.unwrap(), data, "{label}");
            registry.put_manifest("a/b", "t", media_types::OCI_INDEX, "{}");
            assert_eq!(&client.manifest_in(&repo, "t").await.unwrap().bytes[..], b"{}");
            // The label may be true after all.
            let short = client.blob_reader(&repo, descriptor.digest.clone(), descriptor.size - 1);
            let error = read(&short, 0..descriptor.size - 1).await.unwrap_err().to_string();
            assert!(label == "identity" || error.contains(label), "{error}");
        }
    }
}

fn referrer(subject: &Digest, manifest: Value) -> Bytes {
    let mut manifest = manifest;
    manifest["schemaVersion"] = 2.into();
    manifest["mediaType"] = media_types::OCI_MANIFEST.into();
    manifest["layers"] = json!([]);
    manifest["subject"] = json!({"mediaType": media_types::OCI_MANIFEST, "digest": subject, "size": 1});
    manifest.to_string().into()
}

#[tokio::test]
async fn referrers_without_a_type_are_known_by_their_manifests() {
    for listed_by_tag in [false, true] {
        for label in [Value::Null, json!(""), json!(media_types::OCI_EMPTY)] {
            let registry = TestRegistry::builder().start().await;
            let (client, repo, subject) = (client(), repository(&registry), Digest::of(b"subject"));
            let by_config = referrer(&subject, json!({"config": {"mediaType": "wanted"}}));
            let by_type = referrer(&subject, json!({"artifactType": "wanted", "config": {"mediaType": "x"}}));
            let other = referrer(&subject, json!({"config": {"mediaType": "other"}}));
            let gone = referrer(&subject, json!({"config": {"mediaType": "wanted"}, "annotations": {}}));
            let mut entries = Vec::new();
            for bytes in [&by_config, &other, &by_type, &gone] {
                let mut entry = json!({"mediaType": media_types::OCI_MANIFEST, "digest": Digest::of(bytes), "size": bytes.len()});
                entry["artifactType"] = label.clone();
                entries.push(entry);
                if bytes != &gone {
                    let digest = Digest::of(bytes).to_string();
                    registry.put_manifest("a/b", &digest, media_types::OCI_MANIFEST, bytes.clone());
                }
            }
            let list = json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": entries});
            if listed_by_tag {
                registry.put_manifest(
                    "a/b",
                    &subject.referrers_tag(),
                    media_types::OCI_INDEX,
                    list.to_string(),
                );
                registry.inject(Fault::status(404).path("/referrers/"));
            } else {
                let headers = vec![("Content-Type".to_owned(), media_types::OCI_INDEX.to_owned())];
                let answer = Action::Status(200, headers, list.to_string().into());
                registry.inject(Fault::always(answer).path("/referrers/"));
            }
            let found = client.referrers(&repo, &subject, Some("wanted")).await.unwrap();
            let digests: Vec<_> = found.iter().map(|found| found.digest.clone()).collect();
            assert_eq!(digests, [Digest::of(&by_config), Digest::of(&by_type)], "{label}");
            assert!(client.referrers(&repo, &subject, Some("none")).await.unwrap().is_empty());
            // There may be one behind a failure.
            registry.inject(Fault::always(Action::Status(403, vec![], "".into())).path(digests[0].as_str()));
            assert!(client.referrers(&repo, &subject, Some("none")).await.is_err());
            assert_eq!(client.referrers(&repo, &subject, Some("wanted")).await.unwrap().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_flood_of_referrers_without_a_type_costs_a_bounded_number_of_requests() {
    let registry = TestRegistry::builder().start().await;
    let (repo, subject) = (repository(&registry), Digest::of(b"subject"));
    let entry = |i: u32, size: u64| json!({"mediaType": media_types::OCI_MANIFEST, "digest": Digest::of(&i.to_be_bytes()), "size": size});
    // Those that are too large are not looked at.
    let entries: Vec<_> =
        (0..100).map(|i| entry(i, 100 << 20)).chain((100..400).map(|i| entry(i, 100))).collect();
    let list =
        json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": entries}).to_string();
    let headers = vec![("Content-Type".to_owned(), media_types::OCI_INDEX.to_owned())];
    registry.inject(Fault::always(Action::Status(200, headers, list.into())).path("/referrers/"));
    let client = Client::new(ClientConfig { credentials: Arc::new(registry::Anonymous), ..common::config() });
    assert!(client.unwrap().referrers(&repo, &subject, Some("wanted")).await.unwrap().is_empty());
    let looked_at =
        registry.requests().into_iter().filter(|request| request.path.contains("/manifests/sha256:"));
    assert_eq!(looked_at.count(), 32);
}
