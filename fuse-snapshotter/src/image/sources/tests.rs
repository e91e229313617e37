#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::TryStreamExt;
use registry::{Client, ClientConfig, Credential, CredentialProvider, HostConfig, ServerConfig};
use testdata::registry::{Action, Auth, Fault, Listener, Outage, Redirect, TestRegistry};

use super::*;

const SIZE: usize = 1 << 20;
const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(120);

/// Tries once, but for reads that are waited for; and takes little silence for a stall.
fn config(patience: Duration) -> ClientConfig {
    let mut config = ClientConfig::default();
    config.retry.max_retries = 0;
    config.read_retry = RetryPolicy::persistent(patience);
    config.read_retry.max_backoff = SOON;
    config.timeouts.stall = SOON;
    config.timeouts.idle = Duration::from_secs(2);
    config.timeouts.response_header = Duration::from_secs(2);
    config
}

/// Bytes without pattern.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| step()).collect()
}

fn reader(registry: &TestRegistry, data: &[u8], client: &Client) -> (String, Arc<dyn BlobReader>) {
    let digest = registry.put_blob(data.to_vec()).parse().unwrap();
    let repository = Repository::new(&registry.host(), "a/b").unwrap();
    (name_of(&repository), Arc::new(client.blob_reader(&repository, digest, data.len() as u64)))
}

fn sources(registry: &TestRegistry, data: &[u8], config: ClientConfig) -> Sources {
    let patience = config.read_retry.clone();
    let (name, reader) = reader(registry, data, &Client::new(config).unwrap());
    Sources::new(&name, reader, patience)
}

async fn read(blob: &Sources, range: Range<u64>) -> Result<Vec<u8>> {
    let pieces: Vec<_> = blob.read_range(range).await?.try_collect().await?;
    Ok(pieces.concat())
}

fn page(status: u16, content_type: &str, body: &str) -> Action {
    let headers = vec![("content-type".to_owned(), content_type.to_owned())];
    Action::Status(status, headers, body.to_owned().into())
}

#[tokio::test]
async fn reads_outlive_every_kind_of_outage() {
    for outage in [Outage::Refuse, Outage::Silent, Outage::CloseAtOnce] {
        for redirect in [false, true] {
            let mut builder = TestRegistry::builder();
            if redirect {
                builder = builder.redirect_blobs(Redirect::default());
            }
            let registry = builder.start().await;
            let data = noise(SIZE);
            let blob = sources(&registry, &data, config(LONG));
            // The first of them resolves the redirect, the other uses it.
            for range in [0..100_u64, 100..200] {
                registry.set_outage(outage);
                let reading = {
                    let (blob, range) = (blob.clone(), range.clone());
                    tokio::spawn(async move { read(&blob, range).await })
                };
                while blob.waiting().is_none() && !reading.is_finished() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                tokio::time::sleep(SOON).await;
                registry.set_outage(Outage::None);
                let read = reading.await.unwrap().unwrap();
                assert_eq!(read, data[range.start as usize..range.end as usize], "{outage:?} {redirect}");
                assert_eq!(blob.waiting(), None);
            }
        }
    }
}

#[tokio::test]
async fn what_falls_silent_in_the_middle_goes_on_there_over_a_new_connection() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(SIZE);
    let blob = sources(&registry, &data, config(LONG));
    assert_eq!(read(&blob, 0..2).await.unwrap(), data[..2]);
    registry.inject(Fault::once(Action::StallAfter(500_000, Duration::from_secs(3600))));
    assert_eq!(read(&blob, 0..SIZE as u64 - 1).await.unwrap(), data[..SIZE - 1]);
    let requests = registry.requests();
    let [_, stalled, rest] = &requests[..] else { panic!("{requests:#?}") };
    assert_eq!(rest.range, Some((500_000, SIZE as u64 - 2)));
    assert_ne!(rest.connection, stalled.connection);
}

#[tokio::test]
async fn idle_connections_are_not_trusted_after_silence() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(SIZE);
    let blob = sources(&registry, &data, config(LONG));
    registry.set_latency(Duration::from_millis(50));
    let many = (0..8_u64).map(|i| read(&blob, i * 1000..i * 1000 + 10));
    futures::future::try_join_all(many).await.unwrap();
    let before = registry.connections();
    assert!(before > 2, "{before}");
    registry.inject(Fault::once(Action::Stall(Duration::from_secs(3600))));
    assert_eq!(read(&blob, 0..10).await.unwrap(), data[..10]);
    assert_eq!(registry.connections(), before + 1);
}

#[tokio::test]
async fn reads_end_at_the_deadline_and_not_before() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(SIZE);
    let deadline = Duration::from_secs(2);
    for outage in [Outage::Refuse, Outage::Silent] {
        let blob = sources(&registry, &data, config(deadline));
        registry.set_outage(outage);
        let started = Instant::now();
        let reads = futures::future::join_all((0..4).map(|i| read(&blob, i..i + 10))).await;
        assert!(started.elapsed() >= deadline, "{outage:?}: {:?}", started.elapsed());
        for read in reads {
            let error = read.unwrap_err();
            assert!(matches!(error, Error::Transport { .. } | Error::Timeout { .. }), "{outage:?}: {error}");
        }
        registry.set_outage(Outage::None);
        assert_eq!(read(&blob, 5..15).await.unwrap(), data[5..15]);
    }
}

/// The registry itself may be out of reach for ever where there is a mirror.
#[tokio::test]
async fn a_mirror_that_comes_back_before_the_registry_is_enough() {
    let (mirror, origin) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
    let data = noise(SIZE);
    mirror.put_blob(data.clone());
    let mut config = config(LONG);
    let host = HostConfig { mirrors: vec![ServerConfig::new(mirror.url())], ..HostConfig::default() };
    config.hosts.insert(origin.host(), host);
    let blob = sources(&origin, &data, config);
    origin.set_outage(Outage::Refuse);
    mirror.set_outage(Outage::Refuse);
    let reading = {
        let blob = blob.clone();
        tokio::spawn(async move { read(&blob, 0..10).await })
    };
    while blob.waiting().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mirror.set_outage(Outage::None);
    assert_eq!(reading.await.unwrap().unwrap(), data[..10]);
}

/// Neither the front of a registry whose pod is replaced, nor a captive portal, knows what the registry has.
#[tokio::test]
async fn pages_of_whatever_stands_before_a_registry_are_waited_out() {
    let (html, text, json) = ("text/html; charset=utf-8", "text/plain", "application/json");
    for (status, content_type, body) in [
        (404, text, "default backend - 404"),
        (404, text, "404 page not found\n"),
        (404, html, "<html><h1>404 Not Found</h1></html>"),
        (404, json, "{}"),
        (404, json, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        (403, html, "<html><h1>403 Forbidden</h1></html>"),
        (403, json, r#"{"errors":[{"code":"DENIED"}]}"#),
        (401, json, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#),
        (400, html, "<html>The plain HTTP request was sent to HTTPS port</html>"),
        (405, text, "method not allowed"),
        (410, text, "gone"),
        (416, text, ""),
        (421, text, "misdirected request"),
        (451, html, "<html>blocked</html>"),
        (200, html, "<html>Please log in to the network</html>"),
        (200, text, "short"),
        (206, html, "<html>Please log in to the network</html>"),
        (206, text, "no range"),
        (204, text, ""),
        (302, html, "<html>no location</html>"),
        (501, text, "not implemented"),
        (503, text, "upstream"),
    ] {
        let registry = TestRegistry::builder().start().await;
        let data = noise(SIZE);
        let blob = sources(&registry, &data, config(LONG));
        assert_eq!(read(&blob, 0..2).await.unwrap(), data[..2]);
        registry.clear_requests();
        registry.inject(Fault::times(3, page(status, content_type, body)));
        let what = format!("{status} {body}");
        assert_eq!(read(&blob, 5000..6000).await.expect(&what), data[5000..6000], "{what}");
        assert!(registry.requests().len() > 3, "{what}");
    }
}

#[tokio::test]
async fn what_the_registry_says_is_gone_fails_at_once() {
    for code in ["BLOB_UNKNOWN", "NAME_UNKNOWN"] {
        let registry = TestRegistry::builder().start().await;
        let blob = sources(&registry, &noise(SIZE), config(LONG));
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#);
        registry.inject(Fault::always(page(404, "application/json", &body)));
        let error = read(&blob, 0..10).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { gone: true, .. }), "{error}");
        assert_eq!(registry.requests().len(), 1);
    }
}

/// Only the registry itself knows what it has.
#[tokio::test]
async fn the_same_words_of_a_mirror_or_of_storage_are_not_final() {
    let body = r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#;
    let unknown = || page(404, "application/json", body);
    let data = noise(SIZE);
    let storage = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let blob = sources(&storage, &data, config(LONG));
    read(&blob, 0..2).await.unwrap();
    storage.inject(Fault::times(5, unknown()).at(Listener::Redirect));
    assert_eq!(read(&blob, 10..20).await.unwrap(), data[10..20]);

    let (mirror, origin) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
    let mut config = config(LONG);
    let host = HostConfig { mirrors: vec![ServerConfig::new(mirror.url())], ..HostConfig::default() };
    config.hosts.insert(origin.host(), host);
    let blob = sources(&origin, &data, config);
    mirror.inject(Fault::always(unknown()));
    origin.inject(Fault::times(3, page(404, "text/plain", "default backend")));
    assert_eq!(read(&blob, 10..20).await.unwrap(), data[10..20]);
}

/// No login at first, the right one later.
#[derive(Debug, Default)]
struct Late {
    there: AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl CredentialProvider for Late {
    async fn credential(&self, _host: &str, _repository: &str) -> Result<Option<Credential>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.there.load(Ordering::SeqCst).then(|| Credential::password("me", "secret")))
    }
}

#[tokio::test]
async fn a_login_that_comes_later_is_waited_for() {
    for auth in [Auth::bearer("me", "secret"), Auth::basic("me", "secret")] {
        let registry = TestRegistry::builder().auth(auth).start().await;
        let data = noise(SIZE);
        let late = Arc::new(Late::default());
        let credentials = Arc::clone(&late) as Arc<dyn CredentialProvider>;
        let blob = sources(&registry, &data, ClientConfig { credentials, ..config(LONG) });
        let reading = {
            let blob = blob.clone();
            tokio::spawn(async move { read(&blob, 0..10).await })
        };
        while late.asked.load(Ordering::SeqCst) < 3 {
            assert!(!reading.is_finished());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let waiting = blob.waiting().unwrap();
        assert!(waiting.starts_with("waiting for a login that the registry accepts: "), "{waiting}");
        late.there.store(true, Ordering::SeqCst);
        assert_eq!(reading.await.unwrap().unwrap(), data[..10]);
    }
}

#[tokio::test]
async fn a_refusal_goes_to_the_next_repository_at_once() {
    for refusal in [
        page(404, "application/json", r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
        page(404, "text/plain", "default backend"),
        page(403, "application/json", r#"{"errors":[{"code":"DENIED"}]}"#),
        page(401, "text/plain", ""),
        page(503, "text/plain", ""),
    ] {
        let (one, two) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
        let data = noise(SIZE);
        let blob = sources(&one, &data, config(LONG));
        let client = Client::new(config(LONG)).unwrap();
        let (name, other) = reader(&two, &data, &client);
        blob.add(&name, || other);
        read(&blob, 0..2).await.unwrap();
        assert_eq!(two.requests().len(), 0);
        one.clear_requests();
        one.inject(Fault::always(refusal));
        for at in [10_u64, 20, 30] {
            assert_eq!(read(&blob, at..at + 10).await.unwrap(), data[at as usize..][..10]);
        }
        // The other one is asked first from then on.
        assert_eq!(two.requests().len(), 3);
        assert!(one.requests().len() <= 4, "{:#?}", one.requests());
    }
}

/// A repository may be deleted while one of its blobs is being read.
#[tokio::test]
async fn what_breaks_off_in_one_repository_goes_on_in_another() {
    let (one, two) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
    let data = noise(SIZE);
    let blob = sources(&one, &data, config(LONG));
    let client = Client::new(config(LONG)).unwrap();
    let (name, other) = reader(&two, &data, &client);
    blob.add(&name, || other);
    one.inject(Fault::once(Action::ShortBody(500_000)));
    let gone = r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#;
    one.inject(Fault::always(page(404, "application/json", gone)).after(1));
    assert_eq!(read(&blob, 1..SIZE as u64).await.unwrap(), data[1..]);
    let ranges: Vec<_> = two.requests().iter().map(|request| request.range).collect();
    assert_eq!(ranges, [Some((500_001, SIZE as u64 - 1))]);
}

#[tokio::test]
async fn waiting_begins_when_all_have_refused_and_not_if_all_are_gone() {
    let (one, two) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
    let data = noise(SIZE);
    let blob = sources(&one, &data, config(LONG));
    let client = Client::new(config(LONG)).unwrap();
    let (name, other) = reader(&two, &data, &client);
    blob.add(&name, || other);
    let gone = || Fault::always(page(404, "application/json", r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#));
    one.inject(gone());
    two.inject(Fault::times(4, page(404, "text/plain", "default backend")));
    assert_eq!(read(&blob, 0..10).await.unwrap(), data[..10]);
    two.inject(gone());
    let error = read(&blob, 0..10).await.unwrap_err();
    assert!(error.is_final(), "{error}");
}

/// Nobody knows a repository that is not there yet: a read that waits asks it as soon as it is known.
#[tokio::test]
async fn a_read_that_waits_learns_of_new_repositories() {
    let (one, two) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
    let data = noise(SIZE);
    let blob = sources(&one, &data, config(LONG));
    one.inject(Fault::status(403));
    let reading = {
        let blob = blob.clone();
        tokio::spawn(async move { read(&blob, 0..10).await })
    };
    while blob.waiting().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let client = Client::new(config(LONG)).unwrap();
    let (name, other) = reader(&two, &data, &client);
    blob.add(&name, || other);
    assert_eq!(reading.await.unwrap().unwrap(), data[..10]);
}

#[tokio::test]
async fn there_are_eight_at_most_each_once_and_the_newest_among_them() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(1000);
    let blob = sources(&registry, &data, config(LONG));
    let client = Client::new(config(LONG)).unwrap();
    for number in 0..20 {
        for _ in 0..2 {
            let (_, other) = reader(&registry, &data, &client);
            blob.add(&format!("host/{number}"), || other);
        }
    }
    let names: Vec<_> = blob.0.list().iter().map(|source| source.name.to_string()).collect();
    assert_eq!(names.len(), MAX_SOURCES);
    assert_eq!(names[0], format!("{}/a/b", registry.host()));
    assert_eq!(names[MAX_SOURCES - 1], "host/19");
}
