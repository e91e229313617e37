//! What the tests have in common.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test takes what it needs"
)]

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use registry::{
    BlobReader, ByteStream, Client, ClientConfig, Credential, Digest, Repository, StaticCredentials,
};
use testdata::registry::{Listener, TestRegistry};

pub const SECRET: &str = "s3cr3t-pa55word";

/// Quick to give up, so that failing tests fail soon.
pub fn config() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.retry.min_wait = Duration::from_millis(5);
    config.retry.max_retries = 4;
    config.retry.max_wait = Duration::from_secs(2);
    config.timeouts.idle = Duration::from_secs(2);
    config.timeouts.response_header = Duration::from_secs(2);
    config
}

pub fn client() -> Client {
    Client::new(config()).unwrap()
}

pub fn client_as(user: &str, password: &str) -> Client {
    let credentials = Arc::new(StaticCredentials::new(Credential::password(user, password)));
    Client::new(ClientConfig { credentials, ..config() }).unwrap()
}

pub fn repository(registry: &TestRegistry) -> Repository {
    Repository::new(&registry.host(), "a/b").unwrap()
}

/// Bytes without pattern, so that a shifted range cannot pass for the right one.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| step()).collect()
}

pub fn put(registry: &TestRegistry, data: &[u8]) -> Digest {
    registry.put_blob(data.to_vec()).parse().unwrap()
}

pub async fn all(stream: ByteStream) -> registry::Result<Vec<u8>> {
    stream
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

pub async fn read(blob: &dyn BlobReader, range: std::ops::Range<u64>) -> registry::Result<Vec<u8>> {
    all(blob.read_range(range).await?).await
}

/// How many requests came to this listener.
pub fn count(registry: &TestRegistry, listener: Listener) -> usize {
    registry.requests().iter().filter(|r| r.listener == listener && r.path != "/token").count()
}

/// Asserts that neither form of the error's text holds any of the secrets.
pub fn assert_clean(error: &registry::Error, secrets: &[&str]) {
    for text in [error.to_string(), format!("{error:?}"), format!("{error:#?}")] {
        for secret in secrets.iter().chain(&[SECRET, "X-Amz-Signature", "token-1"]) {
            assert!(!text.contains(secret), "`{secret}` in: {text}");
        }
    }
}
