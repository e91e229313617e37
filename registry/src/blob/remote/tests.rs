#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use std::time::Duration;

use futures::TryStreamExt;
use testdata::registry::{Action, Fault, TestRegistry};

use super::super::reader::BlobReader;
use super::*;
use crate::config::ClientConfig;
use crate::hosts::{HostConfig, ServerConfig};

const DATA: &[u8] = b"0123456789";

fn config() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.retry.min_wait = Duration::from_millis(2);
    config.read_retry = RetryPolicy::persistent(Duration::from_secs(120));
    config.read_retry.min_wait = Duration::from_millis(2);
    config
}

fn blob(registry: &TestRegistry, config: ClientConfig) -> RegistryBlob {
    let digest = registry.put_blob(DATA.to_vec()).parse().unwrap();
    let repository = Repository::new(&registry.host(), "a/b").unwrap();
    Client::new(config).unwrap().blob_reader(&repository, digest, DATA.len() as u64)
}

async fn read(blob: &RegistryBlob) -> Result<Vec<u8>> {
    let pieces: Vec<_> = blob.read_range(2..5).await?.try_collect().await?;
    Ok(pieces.concat())
}

/// A port where nobody listens.
async fn dead() -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap()
}

/// Others may be luckier, and find a new URL each time that this read has given one up.
#[tokio::test]
async fn a_read_that_fails_wherever_others_found_the_blob_goes_on_if_it_is_persistent() {
    for persistent in [true, false] {
        let registry = TestRegistry::builder().start().await;
        let blob = blob(&registry, config());
        read(&blob).await.unwrap();
        let before = blob.stats();
        let (url, endpoint) = (dead().await, {
            let target = blob.shared.target.lock().unwrap();
            Arc::clone(&target.as_ref().unwrap().endpoint)
        });
        let reading = tokio::spawn({
            let blob = blob.clone();
            async move {
                let mut backoff = config().read_retry.begin();
                loop {
                    match read(&blob).await {
                        Err(error) if persistent => backoff.pause(error).await?,
                        done => return done,
                    }
                }
            }
        });
        // More than it takes to fail at three of them.
        while !reading.is_finished() && blob.stats().retries < before.retries + 12 {
            let target = Target { url: url.clone(), endpoint: Arc::clone(&endpoint) };
            *blob.shared.target.lock().unwrap() = Some(Arc::new(target));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        *blob.shared.target.lock().unwrap() = None;
        match reading.await.unwrap() {
            Ok(bytes) => assert!(persistent && bytes == DATA[2..5]),
            Err(error) => assert!(!persistent && error.is_transient(), "{persistent}: {error}"),
        }
    }
}

/// A cache that has to fetch the blob from its upstream first, for longer than other servers are waited for.
#[tokio::test]
async fn a_slow_mirror_comes_to_an_answer_and_is_then_known_to_be_slow() {
    let (mirror, origin) = (TestRegistry::builder().start().await, TestRegistry::builder().start().await);
    mirror.put_blob(DATA.to_vec());
    mirror.inject(Fault::always(Action::Stall(Duration::from_millis(600))));
    let mut config = config();
    config.timeouts.stall = Duration::from_millis(150);
    let host = HostConfig { mirrors: vec![ServerConfig::new(mirror.url())], ..HostConfig::default() };
    config.hosts.insert(origin.host(), host);
    let blob = blob(&origin, config);
    assert_eq!(read(&blob).await.unwrap(), DATA[2..5]);
    let before = mirror.requests().len();
    assert!(origin.requests().is_empty());
    // From now on it gets the time that it needs at once.
    assert_eq!(read(&blob).await.unwrap(), DATA[2..5]);
    assert_eq!((mirror.requests().len(), origin.requests().len()), (before + 1, 0));
}
