//! What reads cost, and who waits for whom.

use std::sync::Arc;

use super::rig::{Rig, Trouble, check, entry, lazy, until, usual, within};
use crate::content::error::FetchError;

const SPAN: u64 = 65536;

#[tokio::test]
async fn a_small_file_costs_its_spans_and_one_request() {
    let rig = Rig::new(usual(SPAN));
    // A file of 5 KB in the middle of the small ones, whose last span is its only one.
    let file = entry(&rig.image, "etc/f15");
    rig.read_all(file).await.unwrap();
    let stats = rig.layer.stats();
    let requests = rig.fake.requests();
    assert_eq!((requests.len(), stats.requests), (1, 1));
    // And the span behind, which nobody waits for.
    let spans = rig.image.spans(file).start..rig.image.spans(file).end + 1;
    assert_eq!(requests[0], rig.image.compressed(&spans));
    super::rig::until(|| rig.layer.stats().fetched_spans == spans.len() as u64).await;
    assert_eq!(rig.layer.stats().fetched_bytes, requests[0].end - requests[0].start);
    assert_eq!(stats.served_bytes, rig.image.content(file).len() as u64);
    // Its neighbours in the span came with it, and nothing is asked for twice.
    for neighbour in [14, 15, 16] {
        let neighbour = entry(&rig.image, &format!("etc/f{neighbour}"));
        if rig.image.spans(neighbour) == rig.image.spans(file) {
            rig.read_all(neighbour).await.unwrap();
        }
    }
    assert_eq!(rig.fake.requests().len(), 1);
}

#[tokio::test]
async fn neighbouring_spans_come_in_one_request() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    let spans = rig.image.spans(big);
    assert!(spans.len() > 10);
    rig.read_all(big).await.unwrap();
    assert_eq!(rig.fake.requests(), [rig.image.compressed(&(spans.start..spans.end + 1))]);
}

#[tokio::test]
async fn only_what_is_missing_is_fetched() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    rig.read(big, 1_500_000..1_500_010).await.unwrap();
    let first = rig.fake.requests();
    assert_eq!(first.len(), 1);
    rig.fake.clear();
    rig.read_all(big).await.unwrap();
    // Before and behind it, but not again.
    let requests = rig.fake.requests();
    assert_eq!(requests.len(), 2);
    // Neighbours may share a byte.
    assert!(requests[0].end <= first[0].start + 1 && requests[1].start + 1 >= first[0].end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_readers_of_one_span_make_one_request() {
    let rig = Rig::new(usual(4 << 20));
    let file = entry(&rig.image, "usr/lib/last");
    rig.fake.close();
    let readers: Vec<_> = (0..64)
        .map(|_| {
            let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
            tokio::spawn(async move { check(&layer, &image, file, 1000..2000).await })
        })
        .collect();
    until(|| !rig.fake.requests().is_empty()).await;
    rig.fake.open();
    for reader in readers {
        within(reader).await.unwrap().unwrap();
    }
    assert_eq!(rig.fake.requests().len(), 1);
    assert_eq!(rig.layer.flights(), 0);
}

#[tokio::test]
async fn the_reader_of_the_first_span_does_not_wait_for_the_last() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    let big = entry(&rig.image, "usr/lib/big");
    rig.fake.close();
    let all = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { check(&layer, &image, big, 0..3_000_001).await }
    });
    until(|| !rig.fake.requests().is_empty()).await;
    // Enough for two spans.
    let spans = rig.image.spans(big);
    let bytes = rig.image.compressed(&(spans.start..spans.start + 2));
    rig.fake.let_pass(((bytes.end - bytes.start) / 5000 + 1) as usize);
    rig.read(big, 0..1000).await.unwrap();
    assert!(!all.is_finished());
    rig.fake.open();
    within(all).await.unwrap().unwrap();
    assert_eq!(rig.fake.requests().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_read_from_front_to_back_is_read_ahead() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    for start in (0..3_000_000).step_by(100_000) {
        rig.read(big, start..start + 100_000).await.unwrap();
    }
    let spans = rig.image.spans(big).len();
    let requests = rig.fake.requests().len();
    assert!(requests < spans / 4, "{requests} requests for {spans} spans");
    let fetched = rig.layer.stats().fetched_spans as usize;
    assert!((spans..=spans + 1).contains(&fetched), "{fetched} of {spans}");
    // Never further beyond the file than by a span.
    let last = rig.image.compressed(&(rig.image.spans(big).start..rig.image.spans(big).end + 1)).end;
    assert!(rig.fake.requests().iter().all(|request| request.end <= last));
}

#[tokio::test]
async fn jumping_about_in_a_file_reads_one_span_ahead() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    for start in [2_500_000, 1_000_000, 2_000_000, 500_000] {
        rig.read(big, start..start + 10).await.unwrap();
    }
    until(|| rig.layer.stats().fetched_spans == 8).await;
    assert_eq!(rig.fake.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn images_that_share_a_layer_share_its_flights() {
    let rig = Rig::new(usual(4 << 20));
    let other = lazy(&rig.image, Arc::clone(&rig.fake) as _, &rig.source);
    let file = entry(&rig.image, "usr/lib/last");
    rig.fake.close();
    let readers = [&rig.layer, &other, &rig.layer, &other].map(|layer| {
        let (layer, image) = (Arc::clone(layer), rig.image.clone());
        tokio::spawn(async move { check(&layer, &image, file, 0..5000).await })
    });
    until(|| !rig.fake.requests().is_empty()).await;
    rig.fake.open();
    for reader in readers {
        within(reader).await.unwrap().unwrap();
    }
    assert_eq!(rig.fake.requests().len(), 1);
    assert_eq!(rig.source.cache().used(), rig.layer.cached_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_joined_a_flight_that_fails_tries_once_more() {
    let rig = Rig::new(usual(4 << 20));
    let file = entry(&rig.image, "usr/lib/last");
    // The first request breaks, and the next is fine.
    rig.fake.plan(|number, _| (number == 0).then_some(Trouble::Broken(10)));
    rig.fake.close();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
            tokio::spawn(async move { check(&layer, &image, file, 0..10).await })
        })
        .collect();
    until(|| !rig.fake.requests().is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    rig.fake.open();
    let mut failed = 0;
    for reader in readers {
        failed += usize::from(within(reader).await.unwrap().is_err());
    }
    assert!(failed <= 1, "{failed} failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_registry_that_is_down_is_not_asked_by_every_reader() {
    let rig = Rig::new(usual(4 << 20));
    let file = entry(&rig.image, "usr/lib/last");
    rig.fake.plan(|_, _| Some(Trouble::Broken(10)));
    rig.fake.close();
    let readers: Vec<_> = (0..32)
        .map(|_| {
            let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
            tokio::spawn(async move { check(&layer, &image, file, 0..10).await })
        })
        .collect();
    until(|| !rig.fake.requests().is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    rig.fake.open();
    for reader in readers {
        assert!(matches!(within(reader).await.unwrap(), Err(FetchError::Registry(_))));
    }
    // One that all have joined, and then one each at most; fewer if they take their time.
    assert!(rig.fake.requests().len() <= 33, "{} requests", rig.fake.requests().len());
    assert_eq!(rig.layer.flights(), 0);
    // It is back.
    rig.fake.plan(|_, _| None);
    rig.read_all(file).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_are_no_more_requests_at_a_time_than_connections() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    // Nothing arrives before several are under way.
    rig.fake.close();
    let readers: Vec<_> = (0..40)
        .map(|i| {
            let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
            tokio::spawn(async move { check(&layer, &image, big, i * 70_000..i * 70_000 + 5).await })
        })
        .collect();
    until(|| rig.fake.active() > 1).await;
    rig.fake.open();
    for reader in readers {
        within(reader).await.unwrap().unwrap();
    }
    let most = rig.fake.most_active.load(std::sync::atomic::Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at a time");
}
