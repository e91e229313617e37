//! Fetching what is likely to be read while nobody waits.

use std::sync::Arc;

use super::rig::{Rig, Trouble, check, entry, until, usual, within};

const SPAN: u64 = 65536;

/// Offset in a file of what is in the middle of its `n`-th span.
fn inside(rig: &Rig, file: usize, n: usize) -> usize {
    let spans = rig.image.ztoc.spans();
    let middle = spans.uncompressed(rig.image.spans(file).start + n).start + SPAN / 2;
    (middle - rig.layer.table().archive_range(file, &(0..1)).start) as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_around_is_fetched_once_readers_have_waited_there_again() {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    let spans = rig.image.spans(big);
    assert!(spans.len() > 15, "{spans:?}");
    let read = async |n: usize| {
        let at = inside(&rig, big, n);
        within(rig.read(big, at..at + 10)).await.unwrap();
    };
    // One span, and the one behind it rides along.
    read(2).await;
    until(|| rig.layer.stats().fetched_spans == 2).await;
    read(7).await;
    until(|| rig.layer.fetcher().has_span(spans.start + 6)).await;
    read(12).await;
    until(|| {
        [0, 1, 4, 5, 8, 9, 10, 11, 13, 14].iter().all(|n| rig.layer.fetcher().has_span(spans.start + n))
    })
    .await;
    // Not all of it.
    assert!(!rig.layer.fetcher().has_span(spans.start + 15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_is_fetched_as_a_whole_unless_the_registry_refuses() {
    let rig = Rig::new(usual(2 * SPAN));
    let last = entry(&rig.image, "usr/lib/last");
    let spans = rig.image.spans(last);
    assert!((3..=5).contains(&spans.len()), "{spans:?}");
    // What a reader waits for comes, what nobody waits for does not, and is not insisted on.
    rig.fake.plan(|number, _| (number > 0).then_some(Trouble::Refused));
    within(rig.read(last, 0..10)).await.unwrap();
    until(|| rig.fake.requests().len() == 2 && rig.layer.flights() == 0).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(rig.fake.requests().len(), 2);
    rig.fake.plan(|_, _| None);
    let at = inside(&rig, last, 2);
    within(rig.read(last, at..at + 10)).await.unwrap();
    until(|| spans.clone().all(|span| rig.layer.fetcher().has_span(span))).await;
    rig.read_all(last).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_begins_when_no_reader_waits() {
    let rig = Rig::with(usual(SPAN), 5000, u64::MAX);
    let (big, last) = (entry(&rig.image, "usr/lib/big"), entry(&rig.image, "usr/lib/last"));
    rig.fake.close();
    let reader = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { check(&layer, &image, last, 0..10).await }
    });
    until(|| rig.fake.active() == 1).await;
    let layer = Arc::clone(&rig.layer);
    let later = tokio::spawn(async move { layer.prefetch_idle(big, 0..3 * SPAN).await });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(rig.fake.requests().len(), 1);
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    assert!(within(later).await.unwrap());
    let first = rig.image.spans(big).start;
    assert!((first..first + 3).all(|span| rig.layer.fetcher().has_span(span)));
}
