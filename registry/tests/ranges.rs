//! Ranged reads of blobs: what they cost, and what happens when servers misbehave.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::time::{Duration, Instant};

use common::{all, assert_clean, client, config, count, noise, put, read, repository};
use registry::{BlobReader, Client, Descriptor, Digest, Error, FileBlob};
use testdata::registry::{Action, Expired, Fault, Listener, Redirect, TestRegistry};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn exact_bytes_of_every_kind_of_range() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(MIB as usize);
    let blob = client().blob_reader(&repository(&registry), put(&registry, &data), MIB);
    for range in [0..1, 0..2, 5..6, MIB - 1..MIB, 100_000..900_000, 0..MIB, 1..MIB, 0..MIB - 1] {
        let bytes = read(&blob, range.clone()).await.unwrap();
        assert_eq!(bytes, data[range.start as usize..range.end as usize], "{range:?}");
    }
    let before = registry.requests().len();
    assert_eq!(read(&blob, 7..7).await.unwrap(), b"");
    for bad in [MIB..MIB + 1, 0..MIB + 1, u64::MAX - 1..u64::MAX] {
        assert!(matches!(read(&blob, bad).await, Err(Error::RangeNotSatisfiable { .. })));
    }
    assert_eq!(registry.requests().len(), before, "none of these needs a request");
    let stats = blob.stats();
    assert_eq!(stats.requests, before as u64);
    assert_eq!(stats.bytes_received, 1 + 2 + 1 + 1 + 800_000 + MIB + 2 * (MIB - 1));
}

#[tokio::test]
async fn redirect_is_resolved_once_by_the_first_read_and_reused() {
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let data = noise(100_000);
    let client = client();
    let blob = client.blob_reader(&repository(&registry), put(&registry, &data), data.len() as u64);
    assert_eq!(registry.requests().len(), 0, "no probe");
    for i in 0..20_u64 {
        assert_eq!(read(&blob, i * 100..i * 100 + 50).await.unwrap(), data[i as usize * 100..][..50]);
    }
    assert_eq!(count(&registry, Listener::Main), 1);
    assert_eq!(count(&registry, Listener::Redirect), 20);
    assert_eq!(registry.connections(), 2, "connections are kept alive");
    assert!(registry.requests().iter().all(|r| r.header("accept-encoding") == Some("identity")));
    assert_eq!(client.stats().requests, 21);
    assert_eq!(client.stats().redirects, 1);
}

#[tokio::test]
async fn concurrent_first_reads_resolve_once() {
    let registry = TestRegistry::builder()
        .redirect_blobs(Redirect::default())
        .latency(Duration::from_millis(20))
        .start()
        .await;
    let data = noise(100_000);
    let blob = client().blob_reader(&repository(&registry), put(&registry, &data), data.len() as u64);
    let reads = (0..16_u64).map(|i| read(&blob, i..i + 10));
    for (i, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
        assert_eq!(bytes.unwrap(), data[i..i + 10]);
    }
    assert_eq!(count(&registry, Listener::Main), 1);
    assert_eq!(count(&registry, Listener::Redirect), 16);
}

#[tokio::test]
async fn expired_redirects_are_resolved_again_once() {
    for expired in [Expired::Forbidden, Expired::ExpiredToken, Expired::Unauthorized] {
        for other_host in [true, false] {
            let redirect = Redirect { expired, other_host, ..Redirect::default() };
            let registry = TestRegistry::builder()
                .redirect_blobs(redirect)
                .latency(Duration::from_millis(10))
                .start()
                .await;
            let data = noise(100_000);
            let blob = client().blob_reader(&repository(&registry), put(&registry, &data), data.len() as u64);
            read(&blob, 0..10).await.unwrap();
            registry.expire_redirects();
            registry.clear_requests();
            let reads = (0..16_u64).map(|i| read(&blob, i..i + 10));
            for (i, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
                assert_eq!(bytes.unwrap(), data[i..i + 10]);
            }
            let resolved = registry.requests().iter().filter(|r| r.path.starts_with("/v2/")).count();
            assert_eq!(resolved, 1, "{expired:?} {other_host}");
        }
    }
}

#[tokio::test]
async fn urls_that_are_used_up_in_the_middle_of_many_reads() {
    let redirect = Redirect { expire_after_uses: Some(3), ..Redirect::default() };
    let registry = TestRegistry::builder().redirect_blobs(redirect).start().await;
    let data = noise(10_000);
    let blob = client().blob_reader(&repository(&registry), put(&registry, &data), data.len() as u64);
    for i in 0..10_u64 {
        assert_eq!(read(&blob, i..i + 10).await.unwrap(), data[i as usize..][..10]);
    }
    assert_eq!(count(&registry, Listener::Main), 4);
}

#[tokio::test]
async fn a_whole_blob_for_a_range_gives_the_right_bytes_and_is_noted() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(MIB as usize);
    let client = client();
    let blob = client.blob_reader(&repository(&registry), put(&registry, &data), MIB);
    registry.inject(Fault::always(Action::IgnoreRange));
    assert!(!blob.range_ignored());
    assert_eq!(read(&blob, 700_000..700_100).await.unwrap(), data[700_000..700_100]);
    assert_eq!(read(&blob, MIB - 5..MIB).await.unwrap(), data[MIB as usize - 5..]);
    assert!(blob.range_ignored());
    assert_eq!(blob.stats().ranges_ignored, 2);
    let strict = blob.with_max_skip(1000);
    assert_eq!(read(&strict, 1000..1010).await.unwrap(), data[1000..1010]);
    assert!(matches!(read(&strict, 1001..1010).await, Err(Error::RangeIgnored { .. })));
    // The whole blob with 200 is no ignored range.
    let whole = client.blob_reader(&repository(&registry), Digest::of(&data), MIB);
    assert_eq!(read(&whole, 0..MIB).await.unwrap(), data);
    assert!(!whole.range_ignored());
}

#[tokio::test]
async fn answers_that_are_not_the_range_are_errors() {
    for action in [Action::WrongContentRange, Action::Multipart] {
        let registry = TestRegistry::builder().start().await;
        let data = noise(10_000);
        let blob = client().blob_reader(&repository(&registry), put(&registry, &data), data.len() as u64);
        registry.inject(Fault::always(action));
        let error = read(&blob, 10..20).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_size_that_is_not_the_blobs() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(10_000);
    let digest = put(&registry, &data);
    let client = client();
    let too_long = client.blob_reader(&repository(&registry), digest.clone(), 20_000);
    assert!(matches!(read(&too_long, 15_000..15_001).await, Err(Error::RangeNotSatisfiable { .. })));
    assert!(matches!(read(&too_long, 5..6).await, Err(Error::Protocol { .. })));
    assert!(matches!(read(&too_long, 0..20_000).await, Err(Error::Protocol { .. })));
    let too_short = client.blob_reader(&repository(&registry), digest, 5_000);
    assert!(matches!(read(&too_short, 5..6).await, Err(Error::Protocol { .. })));
    assert!(matches!(read(&too_short, 0..5_000).await, Err(Error::Protocol { .. })));
}

#[tokio::test]
async fn broken_bodies_are_continued_from_the_last_byte() {
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let data = noise(3 << 20);
    let size = data.len() as u64;
    let blob = client().blob_reader(&repository(&registry), put(&registry, &data), size);
    registry.inject(Fault::times(3, Action::ShortBody(300_000)));
    assert_eq!(read(&blob, 10..size - 10).await.unwrap(), data[10..data.len() - 10]);
    assert_eq!(blob.stats().resumed, 3);
    let starts: Vec<_> = registry.requests().iter().filter_map(|r| r.range.map(|r| r.0)).collect();
    assert!(starts.windows(2).all(|pair| pair[0] <= pair[1]), "{starts:?}");
    // Nothing was fetched twice, but what was under way when a connection broke.
    assert!(blob.stats().bytes_received <= size, "{:?}", blob.stats());
}

#[tokio::test]
async fn silence_in_a_body_is_a_broken_connection() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(300_000);
    let mut config = config();
    config.timeouts.idle = Duration::from_millis(100);
    let client = Client::new(config).unwrap();
    let blob = client.blob_reader(&repository(&registry), put(&registry, &data), data.len() as u64);
    registry.inject(Fault::once(Action::StallAfter(100_000, Duration::from_secs(60))));
    let begin = Instant::now();
    assert_eq!(read(&blob, 0..300_000).await.unwrap(), data);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(blob.stats().resumed, 1);
}

#[tokio::test]
async fn bodies_that_always_break_end_in_an_error() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(300_000);
    let blob = client().blob_reader(&repository(&registry), put(&registry, &data), data.len() as u64);
    registry.inject(Fault::always(Action::ShortBody(10)));
    let error = read(&blob, 0..300_000).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(registry.requests().len() < 20);
}

#[tokio::test]
async fn rate_limits_and_server_errors_are_waited_out() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(1000);
    let blob = client().blob_reader(&repository(&registry), put(&registry, &data), 1000);
    let wait = vec![("Retry-After".to_owned(), "1".to_owned())];
    registry.inject(Fault::once(Action::Status(429, wait, "slow down".into())));
    let begin = Instant::now();
    assert_eq!(read(&blob, 0..10).await.unwrap(), data[..10]);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    for action in [
        Action::Status(500, vec![], "".into()),
        Action::Status(503, vec![], "".into()),
        Action::DropConnection,
    ] {
        registry.inject(Fault::once(action));
        assert_eq!(read(&blob, 0..10).await.unwrap(), data[..10]);
    }
    // 501 is final.
    registry.clear_requests();
    registry.inject(Fault::times(2, Action::Status(501, vec![], "".into())));
    assert!(matches!(read(&blob, 0..10).await, Err(Error::Status { status: 501, .. })));
    assert_eq!(registry.requests().len(), 2, "the remembered URL, and once more from the start");
}

#[tokio::test]
async fn a_storage_host_that_vanishes_is_asked_for_anew() {
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let data = noise(1000);
    let blob = client().blob_reader(&repository(&registry), put(&registry, &data), 1000);
    read(&blob, 0..10).await.unwrap();
    registry.inject(Fault::times(2, Action::DropConnection).at(Listener::Redirect));
    registry.clear_requests();
    assert_eq!(read(&blob, 0..10).await.unwrap(), data[..10]);
    assert_eq!(count(&registry, Listener::Main), 1);
}

#[tokio::test]
async fn redirects_are_bounded() {
    let registry = TestRegistry::builder().start().await;
    let digest = put(&registry, b"x");
    let path = format!("/v2/a/b/blobs/{digest}");
    registry.inject(Fault::always(Action::Redirect(format!("{path}?secret={}", common::SECRET))));
    let blob = client().blob_reader(&repository(&registry), digest, 1);
    let error = read(&blob, 0..1).await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    assert_clean(&error, &[]);
    assert_eq!(registry.requests().len(), 11);
}

#[tokio::test]
async fn nothing_of_a_signed_url_gets_into_errors() {
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let data = noise(1000);
    let mut config = config();
    config.retry.max_retries = 0;
    let client = Client::new(config).unwrap();
    let blob = client.blob_reader(&repository(&registry), put(&registry, &data), 1000);
    for action in [
        Action::DropConnection,
        Action::ShortBody(1),
        Action::WrongContentRange,
        Action::Status(
            403,
            vec![],
            format!(
                "<Error><Code>AccessDenied</Code><Message>https://u:{0}@h/?sig={0}</Message></Error>",
                common::SECRET
            )
            .into(),
        ),
        Action::Status(500, vec![], format!("failed: http://h/x?sig={}", common::SECRET).into()),
        Action::Redirect(format!("ftp://{0}:{0}@h/?{0}", common::SECRET)),
        Action::Redirect(format!("http://127.0.0.1:1/?sig={}", common::SECRET)),
    ] {
        registry.clear_faults();
        registry.inject(Fault::always(action.clone()).at(Listener::Redirect));
        let error = read(&blob, 0..10).await.unwrap_err();
        assert_clean(&error, &[&registry.requests().last().unwrap().query.clone().unwrap_or("?".into())]);
    }
}

#[tokio::test]
async fn streams_of_whole_blobs_are_verified() {
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let data = noise(2 << 20);
    let repository = repository(&registry);
    let descriptor = Descriptor::new("x", put(&registry, &data), data.len() as u64);
    let client = client();
    assert_eq!(all(client.blob_stream(&repository, &descriptor).await.unwrap()).await.unwrap(), data);
    assert!(
        registry.requests().iter().all(|r| r.range.is_none()),
        "a whole blob is asked for without a range"
    );

    registry.inject(Fault::once(Action::ShortBody(1 << 20)));
    assert_eq!(all(client.blob_stream(&repository, &descriptor).await.unwrap()).await.unwrap(), data);
    assert_eq!(registry.requests().iter().filter(|r| r.range.is_some()).count(), 1, "at the remembered URL");

    registry.inject(Fault::once(Action::CorruptByte(12345)));
    let error = all(client.blob_stream(&repository, &descriptor).await.unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");

    let bytes = client.blob_bytes(&repository, &descriptor, 4 << 20).await.unwrap();
    assert_eq!(bytes, data);
    registry.inject(Fault::once(Action::CorruptByte(0)));
    let error = client.blob_bytes(&repository, &descriptor, 4 << 20).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");

    registry.clear_requests();
    let error = client.blob_bytes(&repository, &descriptor, 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(registry.requests().is_empty());

    let missing = Descriptor::new("x", Digest::of(b"nowhere"), 7);
    assert!(client.blob_bytes(&repository, &missing, 10).await.unwrap_err().is_not_found());
    assert!(!client.blob_exists(&repository, &missing.digest).await.unwrap());
    assert!(client.blob_exists(&repository, &descriptor.digest).await.unwrap());
}

#[tokio::test]
async fn files_are_blobs_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let data = noise(3 << 20);
    std::fs::write(&path, &data).unwrap();
    let blob: Box<dyn BlobReader> = Box::new(FileBlob::open(&path, Digest::of(&data)).unwrap());
    assert_eq!(blob.size(), data.len() as u64);
    for range in [0..0, 0..1, 5..2_000_000, 0..3 << 20] {
        let bytes = read(&*blob, range.clone()).await.unwrap();
        assert_eq!(bytes, data[range.start as usize..range.end as usize]);
    }
    assert!(matches!(read(&*blob, 0..(3 << 20) + 1).await, Err(Error::RangeNotSatisfiable { .. })));
    let file = std::sync::Arc::new(std::fs::File::open(&path).unwrap());
    let section = FileBlob::section(file, &path, 100, 50, Digest::of(&data[100..150]));
    assert_eq!(read(&section, 10..20).await.unwrap(), data[110..120]);
    std::fs::write(&path, b"short").unwrap();
    assert!(matches!(read(&*blob, 0..10).await, Err(Error::Io { .. })));
    assert!(matches!(FileBlob::open("/nowhere", Digest::of(b"")), Err(Error::Io { .. })));
}
