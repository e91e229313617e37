use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn latency_for_requests_and_connections() {
    let registry = TestRegistry::builder()
        .latency(Duration::from_millis(30))
        .connect_latency(Duration::from_millis(50))
        .start()
        .await;
    let client = client();
    let url = format!("{}/v2/", registry.url());
    for (least, most) in [(80, 200), (30, 79)] {
        let start = Instant::now();
        client.get(&url).send().await.unwrap().bytes().await.unwrap();
        let took = start.elapsed().as_millis();
        assert!(took >= least, "{took} ms");
        // The upper bound only says that the second request did not pay for a connection.
        assert!(took <= most + 100, "{took} ms");
    }
}

#[tokio::test]
async fn bandwidth_is_shared() {
    let registry = TestRegistry::builder().bandwidth(10_000_000).start().await;
    let digest = registry.put_blob(vec![7; 1_000_000]);
    let url = format!("{}/v2/r/blobs/{digest}", registry.url());
    let start = Instant::now();
    let fetch = |_| {
        let url = url.clone();
        tokio::spawn(async move { client().get(url).send().await.unwrap().bytes().await.unwrap().len() })
    };
    let fetches: Vec<_> = (0..4).map(fetch).collect();
    for fetch in fetches {
        assert_eq!(fetch.await.unwrap(), 1_000_000);
    }
    // Four million bytes at ten million a second.
    let took = start.elapsed().as_secs_f64();
    assert!((0.38..0.6).contains(&took), "{took} s");
}
