//! Background fetching.

use std::sync::Arc;

use super::rig::{Rig, Trouble, entry, until, usual, within};

const SPAN: u64 = 65536;

#[tokio::test]
async fn it_fetches_everything_once() {
    let rig = Rig::new(usual(SPAN));
    within(Arc::clone(&rig.layer).fetch_in_background()).await;
    let stats = rig.layer.stats();
    assert_eq!(stats.fetched_spans, rig.image.ztoc.spans().len() as u64);
    rig.fake.plan(|_, _| Some(Trouble::Refused));
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
    // Again: nothing to do.
    within(Arc::clone(&rig.layer).fetch_in_background()).await;
    assert_eq!(rig.layer.stats().requests, stats.requests);
}

#[tokio::test]
async fn it_goes_on_after_a_restart_where_it_was() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    rig.read(big, 0..2_000_000).await.unwrap();
    let fetched = rig.layer.stats().fetched_spans;
    let rig = rig.restarted();
    within(Arc::clone(&rig.layer).fetch_in_background()).await;
    let spans = rig.image.ztoc.spans().len() as u64;
    // A span at an end of what was there may have left a part of a block, which does not survive.
    let again = rig.layer.stats().fetched_spans + fetched - spans;
    assert!(again <= 2, "{again} spans were fetched again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_gives_way_to_a_reader_who_waits_for_something_else() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    rig.fake.close();
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    until(|| rig.fake.active() == 1).await;
    let last = entry(&rig.image, "usr/lib/last");
    let reader = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { super::rig::check(&layer, &image, last, 400_000..400_100).await }
    });
    // The background request is given up although nothing arrives, and only the reader's is left.
    let wanted = rig.image.ztoc.spans().len() - 4;
    until(|| rig.fake.requests().len() == 2 && rig.fake.active() == 1).await;
    assert!(rig.fake.requests()[1].start >= rig.image.ztoc.spans().compressed(wanted - 8).start);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(rig.fake.requests().len(), 2);
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    within(background).await.unwrap();
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
    assert_eq!(rig.layer.flights(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_has_arrived_when_it_gives_way_is_not_fetched_again() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    // Two chunks of the first span, and no more.
    rig.fake.close();
    rig.fake.let_pass(2);
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    until(|| rig.layer.stats().fetched_bytes == 10_000).await;
    let start = rig.fake.requests()[0].start;
    let last = entry(&rig.image, "usr/lib/last");
    let reader = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { super::rig::check(&layer, &image, last, 400_000..400_100).await }
    });
    until(|| rig.fake.requests().len() == 2 && rig.fake.active() == 1).await;
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    within(background).await.unwrap();
    let again: Vec<_> =
        rig.fake.requests().into_iter().skip(2).filter(|range| range.contains(&start)).collect();
    assert_eq!(again, [], "of what began at {start}");
    assert!(rig.fake.requests().iter().any(|range| range.start == start + 10_000));
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
    // Nothing is left over, and nothing holds the cache.
    let (cache, used) = (Arc::downgrade(rig.layer.contents().cache()), rig.source.cache().used());
    assert!(used > 0);
    drop(rig.layer);
    assert!(cache.upgrade().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unfinished_span_does_not_keep_its_cache() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    rig.fake.close();
    rig.fake.let_pass(2);
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    until(|| rig.layer.stats().fetched_bytes == 10_000).await;
    let last = entry(&rig.image, "usr/lib/last");
    let reader = tokio::spawn({
        let layer = Arc::clone(&rig.layer);
        async move { layer.fill(last, 400_000..400_100).await }
    });
    until(|| rig.fake.requests().len() == 2 && rig.fake.active() == 1).await;
    background.abort();
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    let cache = Arc::downgrade(rig.layer.contents().cache());
    drop(rig.layer);
    until(|| cache.upgrade().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_keeps_on_with_what_a_reader_waits_for() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    rig.fake.close();
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    until(|| rig.fake.active() == 1).await;
    let first = entry(&rig.image, "etc/f03");
    let reader = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { super::rig::check(&layer, &image, first, 0..100).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    within(background).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_it_always_get_their_bytes() {
    // Many demands, each of which cancels a background request at some point of its way.
    let rig = Rig::with(usual(1000), 700, u64::MAX);
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    let big = entry(&rig.image, "usr/lib/big");
    for i in 0..200_usize {
        rig.read(big, i * 7919 % 2_900_000..i * 7919 % 2_900_000 + 1000).await.unwrap();
        tokio::task::yield_now().await;
    }
    within(background).await.unwrap();
    assert_eq!(rig.layer.flights(), 0);
}

#[tokio::test]
async fn it_is_cancelled_by_dropping_it() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    rig.fake.close();
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    until(|| rig.fake.active() == 1).await;
    background.abort();
    until(|| rig.fake.active() == 0).await;
    until(|| rig.layer.flights() == 0).await;
    rig.fake.open();
    rig.read_all(0).await.unwrap();
}

#[tokio::test]
async fn it_stops_when_the_cache_is_full() {
    // Spans that are small beside the tenth of the cache that it leaves free.
    let archive = usual(SPAN).archive.to_vec();
    let rig = Rig::with(super::rig::Image::of_blob(archive.into(), 10_000), 10_000, 3 << 20);
    let first = rig.image.files()[0];
    rig.read_all(first).await.unwrap();
    within(Arc::clone(&rig.layer).fetch_in_background()).await;
    let used = rig.source.cache().used();
    assert!((2 << 20..3 << 20).contains(&used), "{used}");
    // What somebody has asked for is still there.
    let requests = rig.fake.requests().len();
    rig.read_all(first).await.unwrap();
    assert_eq!(rig.fake.requests().len(), requests);
}

#[tokio::test]
async fn it_passes_over_what_cannot_be_had() {
    let rig = Rig::new(usual(SPAN));
    let at = rig.image.ztoc.spans().compressed(3).start + 5;
    rig.fake.plan(move |_, _| Some(Trouble::Flipped(at)));
    within(Arc::clone(&rig.layer).fetch_in_background()).await;
    let spans = rig.image.ztoc.spans().len() as u64;
    assert!((spans - 2..spans).contains(&rig.layer.stats().fetched_spans));
    let size = rig.image.blob.len() as u64;
    assert_eq!(rig.fake.requests().iter().filter(|range| **range == (0..size)).count(), 1);
}
