//! Zstandard layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testdata::image::{Compression, Entry, Texture, ZstdForm};

use super::rig::{Image, Rig, Trouble, entry, usual_as, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_is_fetched_in_the_background_and_read() {
    for compression in [Compression::ZSTD, Compression::ZSTD_SEEKABLE, Compression::ZSTD_CHUNKED] {
        let rig = Rig::with(usual_as(compression, 65536), 10_000, u64::MAX);
        let big = entry(&rig.image, "usr/lib/big");
        rig.read(big, 1_000_000..1_000_100).await.unwrap();
        super::rig::until(|| rig.layer.stats().fetched_spans == 2).await;
        within(Arc::clone(&rig.layer).fetch_in_background()).await;
        let stats = rig.layer.stats();
        assert_eq!(stats.fetched_spans, rig.image.ztoc.spans().len() as u64);
        assert_eq!((stats.corrupt_spans, stats.refused_entries), (0, 0));
        rig.fake.plan(|_, _| Some(Trouble::Refused));
        for file in rig.image.files() {
            rig.read_all(file).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_span_that_is_always_wrong_comes_from_the_whole_layer() {
    let rig = Rig::new(usual_as(Compression::ZSTD_CHUNKED, 65536));
    let big = entry(&rig.image, "usr/lib/big");
    let second = rig.image.ztoc.spans().compressed(rig.image.spans(big).start + 1);
    let size = rig.image.blob.len() as u64;
    rig.fake.plan(move |_, range| (*range != (0..size)).then_some(Trouble::Flipped(second.start + 9)));
    rig.read_all(big).await.unwrap();
    assert!(rig.fake.requests().contains(&(0..size)));
    assert!(rig.layer.stats().corrupt_spans > 0);
}

/// 64 MiB of zeros in two frames of some 2 KB, which arrive at once.
#[tokio::test]
async fn a_span_that_is_small_and_unfolds_to_a_lot_lets_others_run() {
    let compression = Compression::Zstd { level: 1, frame: 40 << 20, form: ZstdForm::Plain };
    let image = Image::new(compression, 4 << 20, [Entry::made("zeros", Texture::Zero, 0, 64 << 20)]);
    assert!(image.blob.len() < 16_384, "{}", image.blob.len());
    let rig = Rig::new(image);
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    rig.read(0, 0..4096).await.unwrap();
    let seen = turns.load(Ordering::Relaxed);
    assert!(seen >= 9, "{seen} turns");
    other.abort();
    rig.read(0, (63 << 20)..(64 << 20)).await.unwrap();
}
