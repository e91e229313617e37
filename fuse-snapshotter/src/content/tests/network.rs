//! Over HTTP, with everything that goes wrong there.

use std::sync::Arc;
use std::time::Duration;

use registry::{Client, ClientConfig, Repository};
use testdata::registry::{Action, Fault, Redirect, TestRegistry};

use super::rig::{Image, check, entry, lazy, usual};
use crate::content::cache::CacheRoot;
use crate::content::error::FetchError;
use crate::content::{FetchContext, LazyLayer};

/// Quick to give up.
fn config() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.retry.min_wait = Duration::from_millis(5);
    config.retry.max_retries = 2;
    config.retry.max_wait = Duration::from_millis(50);
    config.timeouts.idle = Duration::from_millis(200);
    config.timeouts.response_header = Duration::from_millis(200);
    config
}

struct Setup {
    server: TestRegistry,
    image: Image,
    layer: Arc<LazyLayer>,
    _directory: tempfile::TempDir,
}

async fn setup() -> Setup {
    let server = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let image = usual(65536);
    let digest = server.put_blob(image.blob.clone()).parse().unwrap();
    let repository = Repository::new(&server.host(), "a/b").unwrap();
    let blob = Client::new(config()).unwrap().blob_reader(&repository, digest, image.blob.len() as u64);
    let directory = tempfile::tempdir().unwrap();
    let source = FetchContext::new(Arc::new(CacheRoot::open(directory.path(), u64::MAX).unwrap()), 4);
    // As the mount has it: no server is to send everything for each span.
    let layer = lazy(&image, Arc::new(blob.with_max_skip(1000)), &source);
    Setup { server, image, layer, _directory: directory }
}

async fn read_everything(setup: &Setup) -> Result<(), FetchError> {
    for file in setup.image.files() {
        check(&setup.layer, &setup.image, file, 0..setup.image.content(file).len()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn trouble_that_passes_is_not_noticed() {
    let stall = Duration::from_secs(1);
    for action in [
        Action::DropConnection,
        Action::ShortBody(1000),
        Action::ShortBody(70_000),
        Action::CorruptByte(500),
        Action::CorruptByte(0),
        Action::Stall(stall),
        Action::StallAfter(20_000, stall),
        Action::Status(503, Vec::new(), "busy".into()),
        Action::WrongContentRange,
        Action::Multipart,
    ] {
        let setup = setup().await;
        setup.server.inject(Fault::once(action.clone()).path("blobs"));
        setup.server.inject(Fault::once(action.clone()).range_only().after(2));
        let result = read_everything(&setup).await;
        // Answers that no honest server gives may be an error, but not a wrong byte.
        if !matches!(action, Action::WrongContentRange | Action::Multipart) {
            result.unwrap_or_else(|error| panic!("{action:?}: {error}"));
        }
        setup.server.clear_faults();
        read_everything(&setup).await.unwrap();
        assert_eq!(setup.layer.flights(), 0);
    }
}

#[tokio::test]
async fn trouble_that_stays_is_an_error_and_not_a_hang() {
    for action in [
        Action::DropConnection,
        Action::ShortBody(10),
        Action::Stall(Duration::from_secs(60)),
        Action::Status(404, Vec::new(), "gone".into()),
    ] {
        let setup = setup().await;
        setup.server.inject(Fault::always(action.clone()).path("blobs"));
        setup.server.inject(Fault::always(action.clone()).range_only());
        let last = entry(&setup.image, "usr/lib/last");
        // Every fifth of a whole body gets through, ten bytes at a time: that is no progress.
        let error = check(&setup.layer, &setup.image, last, 0..10).await.unwrap_err();
        assert!(matches!(&error, FetchError::Registry(_)), "{action:?}: {error}");
        setup.server.clear_faults();
        read_everything(&setup).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_asked_for_everything_once() {
    let setup = setup().await;
    setup.server.inject(Fault::always(Action::IgnoreRange));
    read_everything(&setup).await.unwrap();
    // The first span, whose start is not far in; another one, which shows that this will not do; and the whole layer.
    let whole = setup.server.requests().iter().filter(|r| r.status == 200 && r.method == "GET").count();
    assert!(whole <= 3, "{whole} times");
}

#[tokio::test]
async fn bytes_that_are_always_wrong_lead_to_the_whole_layer() {
    let setup = setup().await;
    setup.server.inject(Fault::always(Action::CorruptByte(100)).range_only());
    read_everything(&setup).await.unwrap();
    let whole = setup.server.requests().iter().filter(|r| r.status == 200 && r.method == "GET").count();
    assert_eq!(whole, 1);
}

#[tokio::test]
async fn connections_are_used_again() {
    let setup = setup().await;
    let big = entry(&setup.image, "usr/lib/big");
    for i in (0..20).rev() {
        check(&setup.layer, &setup.image, big, i * 140_000..i * 140_000 + 10).await.unwrap();
    }
    assert!(setup.layer.stats().requests >= 15);
    // One to the registry, one to the storage, and a little tolerance.
    assert!(setup.server.connections() <= 4, "{} connections", setup.server.connections());
}

#[tokio::test]
async fn a_registry_that_is_down_delays_nothing_that_is_cached() {
    let setup = setup().await;
    read_everything(&setup).await.unwrap();
    setup.server.set_down(true);
    tokio::time::timeout(Duration::from_secs(5), read_everything(&setup)).await.unwrap().unwrap();
}
