//! Small caches, small spans, small files, and what lies at boundaries.

use testdata::image::{Compression, End, Entry, LayerBuilder, Texture, ZstdForm};

use super::rig::{Image, Rig, Trouble, entry, usual, within};
use crate::content::spans::table::LayerTable;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_smaller_than_the_layer_works() {
    let rig = Rig::with(usual(65536), 10_000, 2 << 20);
    for _ in 0..2 {
        for file in rig.image.files() {
            let length = rig.image.content(file).len();
            for start in (0..length).step_by(131_072) {
                rig.read(file, start..length.min(start + 131_072)).await.unwrap();
            }
            // A span that rides along may still be on its way in, and holds its place until it is.
            super::rig::until(|| rig.source.cache().used() <= 2 << 20).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_smaller_than_a_span_or_a_read_works() {
    let rig = Rig::with(usual(4 << 20), 10_000, 1 << 20);
    let big = entry(&rig.image, "usr/lib/big");
    let readers: Vec<_> = (0..8_usize)
        .map(|i| {
            let (layer, image) = (rig.layer.clone(), rig.image.clone());
            tokio::spawn(async move {
                for j in 0..3 {
                    let start = (i * 350_003 + j * 999_983) % 2_800_000;
                    super::rig::check(&layer, &image, big, start..start + 131_072).await.unwrap();
                }
            })
        })
        .collect();
    for reader in readers {
        within(reader).await.unwrap();
    }
    rig.read_all(big).await.unwrap();
}

#[tokio::test]
async fn what_is_cached_does_not_need_the_registry() {
    let rig = Rig::new(usual(65536));
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
    let rig = rig.restarted();
    rig.fake.plan(|_, _| Some(Trouble::Refused));
    rig.fake.close();
    rig.fake.clear();
    for file in rig.image.files() {
        rig.read_all(file).await.unwrap();
    }
    assert_eq!(rig.fake.requests(), []);
}

/// Files that begin and end at all the places that matter.
fn boundaries() -> Vec<Entry> {
    let sizes = [0, 1, 511, 512, 513, 0, 4095, 4096, 4097, 8192, 3584, 1, 12_288, 0, 20_000];
    (0..).zip(sizes).map(|(i, size)| Entry::made(format!("f{i}"), Texture::Random, i, size)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn spans_of_any_size_and_files_at_any_place_are_right() {
    for span_size in [1, 2, 100, 511, 512, 513, 1000, 1024, 4095, 4096, 4097, 5000, 8192, 10_240, 1 << 20] {
        let chunked = Compression::Zstd { level: 1, frame: 3000, form: ZstdForm::Chunked };
        for compression in [Compression::None, Compression::GZIP, Compression::STORED, chunked] {
            for chunk in [1 << 16, 999] {
                // Spans of a byte take their time.
                let files = boundaries().into_iter().take(if span_size < 100 { 7 } else { usize::MAX });
                let rig = Rig::with(Image::new(compression, span_size, files), chunk, u64::MAX);
                // Backwards, so that the parts of blocks come in an unusual order.
                for file in rig.image.files().into_iter().rev() {
                    let length = rig.image.content(file).len();
                    rig.read(file, length / 2..length).await.unwrap();
                    rig.read(file, 0..length).await.unwrap();
                }
                assert_eq!(rig.layer.stats().corrupt_spans, 0);
                for span in 0..rig.image.ztoc.spans().len() {
                    let touched = rig.image.files().iter().any(|file| rig.image.spans(*file).contains(&span));
                    assert!(!touched || rig.layer.fetcher().has_span(span), "span {span} of {span_size}");
                }
            }
        }
    }
}

#[tokio::test]
async fn spans_without_content_are_never_missing() {
    let mut builder = LayerBuilder::new(Compression::None).end(End::Padded(10_240));
    builder.add(Entry::dir("a")).add(Entry::file("f", "content")).add(Entry::dir("b"));
    let rig = Rig::new(Image::of_blob(builder.finish().bytes(), 256));
    let spans = rig.image.ztoc.spans().len();
    let without: Vec<_> = (0..spans).filter(|span| !rig.image.spans(1).contains(span)).collect();
    assert!(without.len() > 30 && without.iter().all(|span| rig.layer.fetcher().has_span(*span)));
    rig.read_all(1).await.unwrap();
    assert_eq!(rig.fake.requests().len(), 1);
    within(rig.layer.clone().fetch_in_background()).await;
    assert_eq!(rig.fake.requests().len(), 1);
}

#[tokio::test]
async fn a_layer_without_files_and_one_without_anything() {
    let rig = Rig::new(Image::new(Compression::GZIP, 1000, [Entry::dir("a"), Entry::file("empty", "")]));
    assert!(rig.layer.try_read(1, 0, &mut []).unwrap().is_some());
    rig.layer.fill(1, 0..0).await.unwrap();
    rig.layer.fill(1, 0..4096).await.unwrap();
    within(rig.layer.clone().fetch_in_background()).await;
    assert_eq!(rig.fake.requests(), []);
    let image = Image::new(Compression::None, 1000, []);
    assert!(LayerTable::new(&image.ztoc).unwrap().is_empty());
}

#[tokio::test]
async fn reads_beyond_the_end_are_nothing_to_fetch() {
    let rig = Rig::new(usual(65536));
    within(rig.layer.fill(0, 1 << 30..1 << 31)).await.unwrap();
    assert_eq!(rig.fake.requests(), []);
    within(rig.layer.fill(0, 0..u64::MAX)).await.unwrap();
    rig.read_all(0).await.unwrap();
    assert_eq!(rig.fake.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_spans_of_a_byte_are_no_trouble() {
    let image = Image::new(Compression::None, 1, [Entry::made("f", Texture::Random, 1, 100_000)]);
    let rig = Rig::with(image, 1 << 16, u64::MAX);
    rig.read_all(0).await.unwrap();
    assert_eq!(rig.fake.requests().len(), 1);
    within(rig.layer.clone().fetch_in_background()).await;
}
