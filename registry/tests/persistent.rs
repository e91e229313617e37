//! Reads that go on until their deadline, whatever happens to the servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::{config, noise, put, read, repository};
use registry::{Client, ClientConfig, Error, HostConfig, RegistryBlob, RetryPolicy, ServerConfig};
use testdata::registry::{Action, Fault, Outage, Redirect, TestRegistry};

const SIZE: usize = 1 << 20;
const SOON: Duration = Duration::from_millis(200);

/// Gives up after the first failure, unless a read is persistent; and takes little silence for a stall.
fn impatient(deadline: Duration) -> ClientConfig {
    let mut config = config();
    config.retry.max_retries = 0;
    config.read_retry = RetryPolicy::persistent(deadline);
    config.read_retry.max_backoff = SOON;
    config.timeouts.stall = SOON;
    config
}

fn blob(registry: &TestRegistry, data: &[u8], config: ClientConfig) -> RegistryBlob {
    let client = Client::new(config).unwrap();
    let blob = client.blob_reader(&repository(registry), put(registry, data), data.len() as u64);
    blob.persist();
    blob
}

#[tokio::test]
async fn they_outlive_every_kind_of_outage() {
    for outage in [Outage::Refuse, Outage::Silent, Outage::CloseAtOnce] {
        for redirect in [false, true] {
            let mut builder = TestRegistry::builder();
            if redirect {
                builder = builder.redirect_blobs(Redirect::default());
            }
            let registry = builder.start().await;
            let data = noise(SIZE);
            let blob = blob(&registry, &data, impatient(Duration::from_secs(120)));
            // The first of them resolves the redirect, the other uses it.
            for range in [0..100_u64, 100..200] {
                registry.set_outage(outage);
                let reading = {
                    let (blob, range) = (blob.clone(), range.clone());
                    tokio::spawn(async move { read(&blob, range).await })
                };
                while blob.stats().retries < 5 && !reading.is_finished() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                registry.set_outage(Outage::None);
                let read = reading.await.unwrap().unwrap();
                assert_eq!(read, data[range.start as usize..range.end as usize], "{outage:?} {redirect}");
            }
        }
    }
}

#[tokio::test]
async fn what_falls_silent_in_the_middle_goes_on_there_over_a_new_connection() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(SIZE);
    let blob = blob(&registry, &data, impatient(Duration::from_secs(120)));
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
    let blob = blob(&registry, &data, impatient(Duration::from_secs(120)));
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
async fn they_end_at_the_deadline_and_not_before() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(SIZE);
    let deadline = Duration::from_secs(2);
    for outage in [Outage::Refuse, Outage::Silent] {
        let blob = blob(&registry, &data, impatient(deadline));
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

#[tokio::test]
async fn what_is_wrong_for_good_fails_at_once() {
    let registry = TestRegistry::builder().start().await;
    let data = noise(SIZE);
    let blob = blob(&registry, &data, impatient(Duration::from_secs(120)));
    registry.inject(Fault::status(404));
    assert!(matches!(read(&blob, 0..10).await, Err(Error::NotFound { .. })));
    assert_eq!(registry.requests().len(), 1);
}

/// The registry itself may be out of reach for ever where there is a mirror.
#[tokio::test]
async fn a_mirror_that_comes_back_before_the_registry_is_enough() {
    let (mirror, origin) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
    let data = noise(SIZE);
    put(&mirror, &data);
    let mut config = impatient(Duration::from_secs(120));
    let host = HostConfig { mirrors: vec![ServerConfig::new(mirror.url())], ..HostConfig::default() };
    config.hosts.insert(origin.host(), host);
    let blob = blob(&origin, &data, config);
    origin.set_outage(Outage::Refuse);
    mirror.set_outage(Outage::Refuse);
    let reading = {
        let blob = blob.clone();
        tokio::spawn(async move { read(&blob, 0..10).await })
    };
    while blob.stats().retries < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mirror.set_outage(Outage::None);
    assert_eq!(reading.await.unwrap().unwrap(), data[..10]);
}
