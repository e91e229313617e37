//! Manifests, referrers and uploads.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::{SECRET, client, client_as, config, noise, put, repository};
use futures::StreamExt;
use registry::{ByteStream, Client, ClientConfig, Descriptor, Digest, Error, Reference, media_types};
use serde_json::json;
use testdata::registry::{Action, Auth, Fault, TestRegistry, longest_chain};

fn manifest_bytes(note: &str) -> Bytes {
    json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": [], "annotations": {"note": note}})
        .to_string()
        .into()
}

#[tokio::test]
async fn manifests_by_tag_and_digest() {
    let registry = TestRegistry::builder().start().await;
    let bytes = manifest_bytes("a");
    let digest: Digest =
        registry.put_manifest("a/b", "latest", media_types::OCI_INDEX, bytes.clone()).parse().unwrap();
    let client = client();
    for text in [format!("{}/a/b", registry.host()), format!("{}/a/b:ignored@{digest}", registry.host())] {
        let manifest = client.manifest(&text.parse::<Reference>().unwrap()).await.unwrap();
        assert_eq!((manifest.bytes.clone(), &manifest.digest), (bytes.clone(), &digest));
        assert_eq!(manifest.media_type, media_types::OCI_INDEX);
        assert_eq!(manifest.descriptor(), Descriptor::of(media_types::OCI_INDEX, &bytes));
    }
    let accept = registry.requests()[0].header("accept").unwrap().to_owned();
    for wanted in [
        media_types::DOCKER_MANIFEST,
        media_types::DOCKER_MANIFEST_LIST,
        media_types::OCI_MANIFEST,
        media_types::OCI_INDEX,
    ] {
        assert!(accept.contains(wanted));
    }
    let head = client.head_manifest(&repository(&registry), "latest").await.unwrap().unwrap();
    assert_eq!(head, Descriptor::of(media_types::OCI_INDEX, &bytes));
    assert_eq!(client.head_manifest(&repository(&registry), "none").await.unwrap(), None);
    let error = client.manifest_in(&repository(&registry), "none").await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
    assert!(matches!(
        client.manifest_in(&repository(&registry), "../x").await,
        Err(Error::InvalidReference { .. })
    ));
}

#[tokio::test]
async fn manifests_are_verified() {
    let registry = TestRegistry::builder().start().await;
    let digest: Digest =
        registry.put_manifest("a/b", "t", media_types::OCI_INDEX, manifest_bytes("a")).parse().unwrap();
    let client = client();
    registry.inject(Fault::once(Action::CorruptByte(3)));
    assert!(matches!(
        client.manifest_in(&repository(&registry), &digest).await,
        Err(Error::DigestMismatch { .. })
    ));
    registry.inject(Fault::once(Action::CorruptByte(3)));
    assert!(matches!(
        client.manifest_in(&repository(&registry), "t").await,
        Err(Error::DigestMismatch { .. })
    ));
    registry.inject(Fault::once(Action::BadDigestHeader));
    assert!(matches!(
        client.manifest_in(&repository(&registry), "t").await,
        Err(Error::DigestMismatch { .. })
    ));
    // A lying header does not matter when the digest itself was asked for.
    registry.inject(Fault::once(Action::BadDigestHeader));
    client.manifest_in(&repository(&registry), &digest).await.unwrap();
    // A body that breaks off is tried again.
    registry.inject(Fault::once(Action::ShortBody(3)));
    client.manifest_in(&repository(&registry), "t").await.unwrap();
    registry.inject(Fault::times(3, Action::Status(500, vec![], "".into())));
    client.manifest_in(&repository(&registry), "t").await.unwrap();
}

#[tokio::test]
async fn oversized_manifests_are_refused_unread() {
    let registry = TestRegistry::builder().start().await;
    let huge = vec![b' '; 16 << 20];
    registry.put_manifest("a/b", "huge", media_types::OCI_INDEX, huge);
    let error = client().manifest_in(&repository(&registry), "huge").await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn media_types_that_servers_leave_out() {
    let registry = TestRegistry::builder().start().await;
    let client = client();
    for (tag, body, expected) in [
        ("a", json!({"schemaVersion": 2, "manifests": []}), Some(media_types::OCI_INDEX)),
        ("b", json!({"schemaVersion": 2, "layers": []}), Some(media_types::OCI_MANIFEST)),
        ("c", json!({"mediaType": "x/y"}), Some("x/y")),
        ("d", json!({}), None),
    ] {
        registry.put_manifest("a/b", tag, "text/plain; charset=utf-8", body.to_string());
        let got = client.manifest_in(&repository(&registry), tag).await;
        assert_eq!(got.ok().map(|m| m.media_type).as_deref(), expected, "{tag}");
    }
}

fn source(data: &[u8]) -> impl Fn() -> futures::future::Ready<registry::Result<ByteStream>> + use<> {
    let data = data.to_vec();
    move || {
        let pieces: Vec<_> = data.chunks(70_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        futures::future::ready(Ok(futures::stream::iter(pieces).boxed()))
    }
}

#[tokio::test]
async fn blobs_are_uploaded_once() {
    for relative in [true, false] {
        for auth in [Auth::None, Auth::bearer("me", SECRET)] {
            let registry = TestRegistry::builder().relative_locations(relative).auth(auth).start().await;
            let client = client_as("me", SECRET);
            let repo = repository(&registry);
            for data in [noise(500_000), Vec::new()] {
                let digest = Digest::of(&data);
                let push = || client.push_blob(&repo, &digest, data.len() as u64, source(&data));
                assert!(push().await.unwrap());
                assert!(!push().await.unwrap());
                assert_eq!(registry.blob(digest.as_str()).unwrap(), data);
            }
            let methods: Vec<_> =
                registry.requests().iter().filter(|r| r.status < 300).map(|r| r.method.clone()).collect();
            assert_eq!(methods.iter().filter(|m| *m == "PUT").count(), 2);
            assert!(!methods.contains(&"PATCH".to_owned()));
        }
    }
}

#[tokio::test]
async fn uploads_begin_anew_after_failures() {
    let registry = TestRegistry::builder().auth(Auth::bearer("me", SECRET)).start().await;
    let client = client_as("me", SECRET);
    let data = noise(500_000);
    let digest = Digest::of(&data);
    for fault in [
        Fault::once(Action::Status(500, vec![], "".into())).method("PUT"),
        Fault::once(Action::DropConnection).method("PUT"),
        Fault::once(Action::Status(503, vec![], "".into())).method("POST").path("/uploads/"),
        Fault::once(Action::Status(
            401,
            vec![("WWW-Authenticate".into(), format!("Bearer realm=\"{}/token\"", registry.url()))],
            "".into(),
        ))
        .method("PUT"),
    ] {
        registry.remove_blob(digest.as_str());
        registry.inject(fault);
        let calls = AtomicUsize::new(0);
        let fresh = source(&data);
        let counted = || {
            calls.fetch_add(1, Ordering::Relaxed);
            fresh()
        };
        assert!(client.push_blob(&repository(&registry), &digest, data.len() as u64, counted).await.unwrap());
        assert_eq!(registry.blob(digest.as_str()).unwrap(), data);
        assert!(calls.load(Ordering::Relaxed) <= 2);
    }
}

#[tokio::test]
async fn uploads_that_cannot_work() {
    let registry = TestRegistry::builder().start().await;
    let client = client();
    let data = noise(1000);
    let repo = repository(&registry);
    for size in [999, 1001] {
        let error = client.push_blob(&repo, &Digest::of(b"1"), size, source(&data)).await.unwrap_err();
        assert!(error.to_string().contains("source"), "{error}");
    }
    let error = client.push_blob(&repo, &Digest::of(b"2"), 1000, source(&data)).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 400, .. }), "{error}");
    let broken = || async {
        let error = Error::Io {
            path: "/x".into(),
            source: std::sync::Arc::new(std::io::Error::other("disk on fire")),
        };
        Ok(futures::stream::iter([Err(error)]).boxed())
    };
    let error = client.push_blob(&repo, &Digest::of(b"3"), 1000, broken).await.unwrap_err();
    assert!(error.to_string().contains("disk on fire"), "{error}");
    registry.inject(Fault::once(Action::Status(202, vec![], "".into())).method("POST"));
    let error = client.push_blob(&repo, &Digest::of(&data), 1000, source(&data)).await.unwrap_err();
    assert!(matches!(&error, Error::Protocol { reason, .. } if reason.contains("Location")), "{error}");
}

#[tokio::test]
async fn upload_locations_elsewhere_get_no_credentials() {
    let storage = TestRegistry::builder().start().await;
    let registry = TestRegistry::builder().auth(Auth::basic("me", SECRET)).start().await;
    let data = noise(1000);
    let location = format!("{}/v2/a/b/elsewhere?sig=abc%2B", storage.url());
    storage.inject(Fault::once(Action::Status(201, vec![], "".into())).method("PUT"));
    registry.inject(
        Fault::once(Action::Status(202, vec![("Location".into(), location)], "".into())).method("POST"),
    );
    let client = client_as("me", SECRET);
    assert!(client.push_blob(&repository(&registry), &Digest::of(&data), 1000, source(&data)).await.unwrap());
    let put = storage.requests().pop().unwrap();
    assert!(!put.had_authorization);
    assert!(put.query.clone().unwrap().starts_with("sig=abc%2B&digest=sha256"), "{put:?}");
    assert_eq!(put.header("content-length"), Some("1000"));
}

fn referrer(subject: &Digest, artifact_type: &str, note: &str) -> (Bytes, Descriptor) {
    let bytes: Bytes = json!({
        "schemaVersion": 2, "mediaType": media_types::OCI_MANIFEST, "artifactType": artifact_type,
        "config": {"mediaType": media_types::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2},
        "layers": [], "annotations": {"note": note},
        "subject": {"mediaType": media_types::OCI_MANIFEST, "digest": subject, "size": 1},
    })
    .to_string()
    .into();
    let mut descriptor = Descriptor::of(media_types::OCI_MANIFEST, &bytes);
    descriptor.artifact_type = Some(artifact_type.to_owned());
    descriptor.annotations.insert("note".to_owned(), note.to_owned());
    (bytes, descriptor)
}

#[tokio::test]
async fn referrers_with_and_without_the_api() {
    for api in [true, false] {
        let registry = TestRegistry::builder().referrers_api(api).referrers_page(2).start().await;
        let client = client();
        let repo = repository(&registry);
        let subject = Digest::of(b"subject");
        put(&registry, b"{}");
        assert!(client.referrers(&repo, &subject, None).await.unwrap().is_empty());
        let mut pushed = Vec::new();
        for i in 0..7 {
            let (bytes, descriptor) =
                referrer(&subject, if i % 2 == 0 { "even" } else { "odd" }, &i.to_string());
            let done =
                client.push_referrer(&repo, bytes.clone(), media_types::OCI_MANIFEST, &descriptor, &subject);
            assert_eq!(done.await.unwrap().subject_accepted, api);
            // Pushing again changes nothing.
            client
                .push_referrer(&repo, bytes, media_types::OCI_MANIFEST, &descriptor, &subject)
                .await
                .unwrap();
            pushed.push(descriptor);
        }
        assert_eq!(client.referrers(&repo, &subject, None).await.unwrap(), pushed);
        let even: Vec<_> = pushed.iter().step_by(2).cloned().collect();
        assert_eq!(client.referrers(&repo, &subject, Some("even")).await.unwrap(), even);
        assert!(client.referrers(&repo, &subject, Some("neither")).await.unwrap().is_empty());
        assert_eq!(registry.tags("a/b").contains(&subject.referrers_tag()), !api);
    }
}

#[tokio::test]
async fn referrers_filtered_here_if_not_there() {
    let registry = TestRegistry::builder().start().await;
    let subject = Digest::of(b"subject");
    let (_, wanted) = referrer(&subject, "a", "1");
    let (_, other) = referrer(&subject, "b", "2");
    let index =
        json!({"schemaVersion": 2, "manifests": [other, {"digest": "sha512:odd"}, wanted]}).to_string();
    let typed = vec![("Content-Type".to_owned(), media_types::OCI_INDEX.to_owned())];
    registry.inject(Fault::once(Action::Status(200, typed, index.into())).path("/referrers/"));
    assert_eq!(client().referrers(&repository(&registry), &subject, Some("a")).await.unwrap(), [wanted]);
}

#[tokio::test]
async fn api_and_fallback_are_asked_at_once() {
    let latency = std::time::Duration::from_millis(300);
    let registry = TestRegistry::builder().referrers_api(false).latency(latency).start().await;
    client().referrers(&repository(&registry), &Digest::of(b"s"), None).await.unwrap();
    let requests = registry.requests();
    assert_eq!((requests.len(), longest_chain(&requests).len()), (2, 1));
}

#[tokio::test]
async fn a_server_is_asked_as_it_has_answered_before() {
    for api in [true, false] {
        let registry = TestRegistry::builder().referrers_api(api).start().await;
        let (client, subject) = (client(), Digest::of(b"subject"));
        let (bytes, descriptor) = referrer(&subject, "a", "1");
        let repository = repository(&registry);
        put(&registry, b"{}");
        client
            .push_referrer(&repository, bytes, media_types::OCI_MANIFEST, &descriptor, &subject)
            .await
            .unwrap();
        for _ in 0..2 {
            // What was asked beside the first answer, and given up, may still be on its way.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            registry.clear_requests();
            let found = client.referrers(&repository, &subject, Some("a")).await.unwrap();
            assert_eq!(found, std::slice::from_ref(&descriptor));
        }
        assert_eq!(registry.requests().len(), 1, "{api}");
        // Where nothing is found that way, the other one is asked as ever.
        registry.clear_requests();
        assert!(client.referrers(&repository, &Digest::of(b"other"), Some("a")).await.unwrap().is_empty());
        assert_eq!(registry.requests().len(), if api { 1 } else { 3 }, "{api}");
    }
}

#[tokio::test]
async fn answers_that_are_no_list_mean_the_fallback() {
    let registry = TestRegistry::builder().start().await;
    let subject = Digest::of(b"subject");
    let (_, wanted) = referrer(&subject, "a", "1");
    let index =
        json!({"schemaVersion": 2, "mediaType": media_types::OCI_INDEX, "manifests": [wanted]}).to_string();
    registry.put_manifest("a/b", &subject.referrers_tag(), media_types::OCI_INDEX, index);
    let html = vec![("Content-Type".to_owned(), "text/html".to_owned())];
    for action in [
        Action::Status(200, html, "<html>".into()),
        Action::Status(405, vec![], "".into()),
        Action::Status(400, vec![], "".into()),
    ] {
        registry.inject(Fault::once(action).path("/referrers/"));
        assert_eq!(
            client().referrers(&repository(&registry), &subject, Some("a")).await.unwrap(),
            std::slice::from_ref(&wanted)
        );
    }
    // An API that is broken, with no fallback, is an error and not an empty list.
    registry.inject(Fault::always(Action::Status(503, vec![], "".into())).path("/referrers/"));
    let mut config = config();
    config.retry.max_retries = 1;
    let client = Client::new(config).unwrap();
    assert!(client.referrers(&repository(&registry), &Digest::of(b"other"), None).await.is_err());
}

#[tokio::test]
async fn pages_on_other_servers_and_without_end() {
    let registry = TestRegistry::builder().start().await;
    let subject = Digest::of(b"subject");
    let path = format!("/v2/a/b/referrers/{subject}");
    let page = |link: String| {
        let headers = vec![
            ("Content-Type".to_owned(), media_types::OCI_INDEX.to_owned()),
            ("Link".to_owned(), format!("<{link}>; rel=\"next\"")),
        ];
        Action::Status(200, headers, r#"{"schemaVersion":2,"manifests":[]}"#.into())
    };
    registry.inject(Fault::once(page("http://127.0.0.1:1/x".into())).path("/referrers/"));
    assert!(client().referrers(&repository(&registry), &subject, None).await.unwrap().is_empty());
    registry.inject(Fault::always(page(path)).path("/referrers/"));
    let error = client().referrers(&repository(&registry), &subject, None).await.unwrap_err();
    assert!(error.to_string().contains("pages"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_of_the_fallback_do_not_lose_entries() {
    let registry = TestRegistry::builder().referrers_api(false).start().await;
    put(&registry, b"{}");
    let subject = Digest::of(b"subject");
    let repo = repository(&registry);
    let writers = (0..4).map(|i| {
        let (repo, subject) = (repo.clone(), subject.clone());
        tokio::spawn(async move {
            let (bytes, descriptor) = referrer(&subject, "t", &i.to_string());
            let client = Client::new(ClientConfig { ..config() }).unwrap();
            client
                .push_referrer(&repo, bytes, media_types::OCI_MANIFEST, &descriptor, &subject)
                .await
                .unwrap();
        })
    });
    for done in futures::future::join_all(writers).await {
        done.unwrap();
    }
    assert_eq!(client().referrers(&repo, &subject, None).await.unwrap().len(), 4);
}

/// Callers spawn all of these.
#[tokio::test]
async fn futures_can_be_sent_between_threads() {
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let registry = TestRegistry::builder().start().await;
    let (client, repo) = (client(), repository(&registry));
    let descriptor = Descriptor::of("x", b"");
    drop(sendable(client.manifest_in(&repo, "t")));
    drop(sendable(client.head_manifest(&repo, &descriptor.digest)));
    drop(sendable(client.push_manifest(&repo, "t", "x", Bytes::new())));
    drop(sendable(client.referrers(&repo, &descriptor.digest, None)));
    drop(sendable(client.push_referrer(&repo, Bytes::new(), "x", &descriptor, &descriptor.digest)));
    drop(sendable(client.blob_stream(&repo, &descriptor)));
    drop(sendable(client.blob_bytes(&repo, &descriptor, 1)));
    drop(sendable(client.push_blob(&repo, &descriptor.digest, 0, source(b""))));
}
