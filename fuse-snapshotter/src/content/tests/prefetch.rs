//! Fetching what will be read.

use std::sync::Arc;

use super::rig::{Rig, Trouble, entry, until, usual, within};

const SPAN: u64 = 65536;

#[tokio::test]
async fn a_run_is_one_request_and_is_fetched_once() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    let spans = rig.layer.spans_of(big, &(0..u64::MAX));
    assert_eq!(spans, rig.image.spans(big));
    let run = spans.start + 2..spans.start + 6;
    let (fetched, bytes) = within(rig.layer.prefetch(run.clone())).await.unwrap();
    let expected = rig.image.compressed(&run);
    assert_eq!((fetched, rig.fake.requests()), (4, vec![expected.clone()]));
    assert!(bytes >= expected.end - expected.start);
    assert_eq!(within(rig.layer.prefetch(run)).await.unwrap(), (0, 0));
    assert_eq!(rig.fake.requests().len(), 1);
    // What does not exist.
    let count = rig.image.ztoc.spans().len();
    assert_eq!(within(rig.layer.prefetch(count + 7..usize::MAX)).await.unwrap(), (0, 0));
    assert!(rig.layer.spans_of(usize::MAX, &(0..1)).is_empty());
    assert!(rig.layer.spans_of(big, &(u64::MAX - 1..u64::MAX)).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_does_not_wait_for_it() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    rig.fake.close();
    let layer = Arc::clone(&rig.layer);
    let run = 0..4;
    let prefetching = tokio::spawn(async move { layer.prefetch(run).await });
    until(|| rig.fake.active() == 1).await;
    let last = entry(&rig.image, "usr/lib/last");
    let reader = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { super::rig::check(&layer, &image, last, 400_000..400_100).await }
    });
    // Its request goes out beside the other one.
    until(|| rig.fake.active() == 2).await;
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    assert_eq!(within(prefetching).await.unwrap().unwrap().0, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_for_a_span_of_it_shares_it() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    rig.fake.close();
    let big = entry(&rig.image, "usr/lib/big");
    let run = rig.image.spans(big).start + 1..rig.image.spans(big).start + 3;
    let layer = Arc::clone(&rig.layer);
    let prefetching = tokio::spawn(async move { layer.prefetch(run).await });
    until(|| rig.fake.active() == 1).await;
    let reader = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { super::rig::check(&layer, &image, big, 100_000..100_100).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(rig.fake.requests().len(), 1);
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    within(prefetching).await.unwrap().unwrap();
    assert_eq!(rig.fake.requests().len(), 1);
}

/// The image is removed, or something else makes it pointless.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_request_leaves_what_has_arrived_and_nobody_waiting() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    let second = rig.image.ztoc.spans().compressed(1);
    rig.fake.close();
    let layer = Arc::clone(&rig.layer);
    let prefetching = tokio::spawn(async move { layer.prefetch(0..6).await });
    until(|| rig.fake.active() == 1).await;
    rig.fake.let_pass(second.end.div_ceil(5000) as usize);
    until(|| rig.layer.stats().fetched_spans == 2).await;
    prefetching.abort();
    assert!(prefetching.await.unwrap_err().is_cancelled());
    until(|| rig.layer.flights() == 0).await;
    rig.fake.open();
    assert_eq!(within(rig.layer.prefetch(0..6)).await.unwrap().0, 4);
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_is_down_is_an_error_and_no_more() {
    let rig = Rig::new(usual(SPAN));
    rig.fake.plan(|_, _| Some(Trouble::Refused));
    assert!(within(rig.layer.prefetch(0..3)).await.is_err());
    assert!(rig.layer.last_error().is_none(), "no read has failed");
    rig.fake.plan(|_, _| None);
    assert_eq!(within(rig.layer.prefetch(0..3)).await.unwrap().0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn background_fetch_waits_for_it() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    rig.fake.close();
    let layer = Arc::clone(&rig.layer);
    let prefetching = tokio::spawn(async move { layer.prefetch(5..7).await });
    until(|| rig.fake.active() == 1).await;
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(rig.fake.requests().len(), 1);
    rig.fake.open();
    within(prefetching).await.unwrap().unwrap();
    within(background).await.unwrap();
    assert_eq!(rig.layer.stats().fetched_spans, rig.image.ztoc.spans().len() as u64);
}
