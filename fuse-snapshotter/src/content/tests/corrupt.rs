//! Bytes that are wrong, and zTOCs that are.

use bytes::Bytes;
use ztoc::Ztoc;

use super::rig::{Image, Rig, Trouble, entry, usual};
use crate::content::error::FetchError;

const SPAN: u64 = 65536;

fn rig() -> (Rig, usize, u64) {
    let rig = Rig::new(usual(SPAN));
    let big = entry(&rig.image, "usr/lib/big");
    let spans = rig.image.spans(big);
    // A byte in the middle of the file's second span.
    let second = rig.image.ztoc.spans().compressed(spans.start + 1);
    (rig, big, second.start.midpoint(second.end))
}

#[tokio::test]
async fn a_span_that_is_wrong_once_is_fetched_again_alone() {
    let (rig, big, at) = rig();
    rig.fake.plan(move |number, _| (number == 0).then_some(Trouble::Flipped(at)));
    rig.read_all(big).await.unwrap();
    let stats = rig.layer.stats();
    assert_eq!((stats.corrupt_spans, stats.requests), (1, 2));
    assert_eq!(rig.fake.requests()[1], rig.image.ztoc.spans().compressed(rig.image.spans(big).start + 1));
}

#[tokio::test]
async fn a_span_that_is_always_wrong_comes_from_the_whole_layer() {
    let (rig, big, at) = rig();
    let size = rig.image.blob.len() as u64;
    rig.fake.plan(move |_, range| (*range != (0..size)).then_some(Trouble::Flipped(at)));
    rig.read_all(big).await.unwrap();
    assert!(rig.fake.requests().contains(&(0..size)));
    // From now on everything comes from the copy.
    rig.fake.clear();
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
    assert_eq!(rig.fake.requests(), []);
    assert_eq!(rig.layer.flights(), 0);
    // The copy does not stay behind.
    assert!(!rig.layer.contents().directory().join("layer").exists());
}

#[tokio::test]
async fn the_other_spans_of_the_request_do_not_suffer() {
    let (rig, big, at) = rig();
    rig.fake.plan(move |_, _| Some(Trouble::Flipped(at)));
    // The whole layer is wrong, too: there is nothing to be had.
    let error = rig.read_all(big).await.unwrap_err();
    assert!(matches!(&error, FetchError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("span digests do not match"), "{error}");
    // All of the file but the one span is there.
    let requests = rig.fake.requests().len();
    rig.read(big, 2_000_000..3_000_001).await.unwrap();
    assert_eq!(rig.fake.requests().len(), requests);
    // The whole layer is not fetched for each read that fails.
    let whole = |rig: &Rig| {
        rig.fake.requests().iter().filter(|r| r.end - r.start == rig.image.blob.len() as u64).count()
    };
    assert_eq!(whole(&rig), 1);
    rig.read_all(big).await.unwrap_err();
    assert_eq!(whole(&rig), 1);
    assert_eq!(rig.layer.flights(), 0);
}

#[tokio::test]
async fn wrong_bytes_are_never_seen() {
    let (rig, big, _) = rig();
    // Every byte of every span is wrong at some time, and whatever can be read must be right.
    let size = rig.image.blob.len() as u64;
    rig.fake.plan(move |number, range| {
        let length = (range.end - range.start).max(1);
        let at = range.start + (number as u64).wrapping_mul(7919) % length;
        (number % 3 != 2 || *range == (0..size)).then_some(Trouble::Flipped(at))
    });
    for start in (0..3_000_000).step_by(150_000) {
        let _ = rig.read(big, start..start + 100).await;
        let mut buffer = [0; 100];
        for at in (0..3_000_000).step_by(50_000) {
            if rig.layer.try_read(big, at, &mut buffer).unwrap().is_some() {
                assert_eq!(buffer, rig.image.content(big)[at as usize..at as usize + 100]);
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_wrong_and_not_a_hang() {
    let (rig, big, _) = rig();
    rig.fake.plan(|number, _| (number == 0).then_some(Trouble::Short(100_000)));
    rig.read_all(big).await.unwrap();
    let (rig, big, _) = self::rig();
    rig.fake.plan(|_, _| Some(Trouble::Short(3)));
    assert!(rig.read_all(big).await.is_err());
    assert_eq!(rig.layer.flights(), 0);
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_asked_for_everything_once() {
    let (rig, big, _) = rig();
    rig.fake.plan(|_, _| Some(Trouble::RangeIgnored));
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
    let size = rig.image.blob.len() as u64;
    assert_eq!(rig.fake.requests().iter().filter(|range| **range == (0..size)).count(), 1);
    assert!(rig.fake.requests().len() < 5, "{:?}", rig.fake.requests());
    rig.read_all(big).await.unwrap();
}

/// The zTOC with another digest for a span.
fn with_false_digest(image: &Image, span: usize) -> Image {
    let digest = image.ztoc.spans().digest(span).unwrap().to_string();
    let mut bytes = image.ztoc.bytes().to_vec();
    let at = bytes.windows(digest.len()).position(|window| window == digest.as_bytes()).unwrap();
    bytes[at + "sha256:".len()..at + digest.len()].fill(b'0');
    Image { ztoc: Ztoc::parse(Bytes::from(bytes)).unwrap(), ..image.clone() }
}

#[tokio::test]
async fn a_false_span_digest_is_called_false() {
    let honest = usual(SPAN);
    let big = entry(&honest, "usr/lib/big");
    let span = honest.spans(big).start + 1;
    let rig = Rig::new(with_false_digest(&honest, span));
    let error = rig.read_all(big).await.unwrap_err();
    assert!(matches!(&error, FetchError::False { .. }), "{error}");
    // All else is served, from the copy that had to be fetched.
    rig.fake.clear();
    rig.read(big, 2_000_000..2_100_000).await.unwrap();
    rig.read_all(entry(&rig.image, "usr/lib/last")).await.unwrap();
    assert!(matches!(rig.read_all(big).await.unwrap_err(), FetchError::False { .. }));
    assert_eq!((rig.fake.requests().len(), rig.layer.flights()), (0, 0));
}

#[test]
fn metrics_tell_what_is_to_blame_and_fetches_that_were_given_up_do_not_count() {
    let corrupt = FetchError::Corrupt { layer: String::new(), span: 0, reason: String::new() };
    assert_eq!(corrupt.kind(), Some("corrupt"));
    assert_eq!(FetchError::Cancelled.kind(), None);
}
