//! Over a long link.

use std::ops::Range;
use std::sync::Arc;

use testdata::image::{Compression, Entry, Texture};

use super::rig::{Image, Rig, Trouble, check, entry, until, within};

const CHUNK: u64 = 256 << 10;

/// Two files that do not compress, each in a span of 16 chunks or a little more.
fn image() -> Image {
    let file = |name, seed| Entry::made(name, Texture::Random, seed, 4 << 20);
    Image::new(Compression::GZIP, 4 << 20, [file("first", 1), file("second", 2), file("third", 3)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_span_comes_in_chunks_and_whole() {
    let rig = Rig::far(image());
    let second = entry(&rig.image, "second");
    rig.read_all(second).await.unwrap();
    until(|| rig.layer.flights() == 0).await;
    let mut requests = rig.fake.requests();
    requests.sort_by_key(|range| range.start);
    // All of it, nothing twice, and no chunk is longer than it may be.
    assert!(requests.windows(2).all(|pair| pair[0].end == pair[1].start), "{requests:?}");
    let wanted = rig.image.compressed(&rig.image.spans(second));
    let all = requests[0].start..requests[requests.len() - 1].end;
    assert!(all.start <= wanted.start && wanted.end <= all.end, "{all:?}");
    assert!(requests.iter().all(|chunk| chunk.end - chunk.start <= CHUNK), "{requests:?}");
    assert!(rig.fake.most_active.load(std::sync::atomic::Ordering::SeqCst) > 1);
    assert_eq!(rig.layer.stats().requests, requests.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_chunk_that_fails_fails_the_read_and_not_the_next() {
    let rig = Rig::far(image());
    let second = entry(&rig.image, "second");
    let Range { start, end } = rig.image.compressed(&rig.image.spans(second));
    for trouble in [Trouble::Refused, Trouble::Broken(1000)] {
        rig.fake.plan(move |_, range| range.contains(&((start + end) / 2)).then_some(trouble));
        rig.read_all(second).await.unwrap_err();
    }
    rig.fake.plan(|_, _| None);
    rig.read_all(second).await.unwrap();
    until(|| rig.layer.flights() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_overtakes_at_the_next_piece() {
    let rig = Rig::far(image());
    rig.fake.close();
    let background = tokio::spawn(Arc::clone(&rig.layer).fetch_in_background());
    // It leaves slots free.
    until(|| rig.fake.requests().len() == 2).await;
    let third = entry(&rig.image, "third");
    let reader = tokio::spawn({
        let (layer, image) = (Arc::clone(&rig.layer), rig.image.clone());
        async move { check(&layer, &image, third, 1 << 20..(1 << 20) + 10).await }
    });
    until(|| rig.fake.requests().len() == 6).await;
    // Nothing was given up for the reader, and all of the next ones are its own.
    let span = rig.image.compressed(&rig.image.spans(third));
    assert!(
        rig.fake.active() == 6 && rig.fake.requests()[2..].iter().all(|range| span.contains(&range.start))
    );
    rig.fake.open();
    within(reader).await.unwrap().unwrap();
    within(background).await.unwrap();
    let once = rig.fake.requests();
    let mut starts: Vec<_> = once.iter().map(|range| range.start).collect();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len(), once.len(), "{once:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_chunk_whose_connection_is_slow_is_asked_for_again() {
    let rig = Rig::far(image());
    let second = entry(&rig.image, "second");
    let Range { start, end } = rig.image.compressed(&rig.image.spans(second));
    let middle = (start + end) / 2;
    // The first answer for it stops in the middle.
    rig.fake.plan(move |_, range| {
        let whole = range.end - range.start == CHUNK;
        (whole && range.contains(&middle)).then_some(Trouble::Silent(100_000))
    });
    rig.read_all(second).await.unwrap();
    let requests = rig.fake.requests();
    let slow = requests.iter().find(|range| range.contains(&middle)).unwrap();
    let again: Vec<_> = requests.iter().filter(|range| range.end == slow.end && *range != slow).collect();
    // What had come is not asked for again.
    assert!(again.len() == 1 && again[0].start == slow.start + 100_000, "{slow:?} {again:?}");
    assert_eq!(rig.layer.stats().requests, requests.len() as u64);
    until(|| rig.layer.flights() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_rides_along_comes_after_what_is_waited_for() {
    let rig = Rig::far(image());
    let first = entry(&rig.image, "first");
    let spans = rig.image.spans(first);
    rig.read(first, 0..10).await.unwrap();
    let wanted = rig.image.compressed(&(spans.start..spans.start + 1));
    until(|| rig.layer.flights() == 0).await;
    let requests = rig.fake.requests();
    let of_span = (wanted.end - wanted.start).div_ceil(CHUNK) as usize;
    // Those that get slots together may begin in any order.
    let (before, after) = requests.split_at(of_span - 6);
    assert!(before.iter().all(|range| range.end <= wanted.end), "{requests:?}");
    assert!(after.iter().any(|range| range.start >= wanted.end), "{requests:?}");
}
