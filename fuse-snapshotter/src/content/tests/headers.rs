//! zTOCs that lie about names, sizes and modes.

use testdata::image::{Compression, Entry};
use ztoc::Ztoc;

use super::rig::{Image, Rig};
use crate::content::error::FetchError;

fn entries(second: Entry) -> Vec<Entry> {
    let file = |name: &str| Entry::file(name, name.repeat(700 / name.len()));
    vec![file("first"), second, file("third"), Entry::dir("dir"), file("fourth")]
}

/// An uncompressed layer with the truth, and a zTOC made from the layer with the lie, in which the digests are those of
/// the truth.
fn lying(truth: Entry, lie: Entry, span_size: u64) -> Image {
    let truth = Image::new(Compression::None, span_size, entries(truth));
    let lie = Image::new(Compression::None, span_size, entries(lie));
    assert_eq!(truth.blob.len(), lie.blob.len());
    let mut bytes = lie.ztoc.bytes().to_vec();
    for span in 0..truth.ztoc.spans().len() {
        let [from, to] = [&lie, &truth].map(|image| image.ztoc.spans().digest(span).unwrap().to_string());
        if from != to {
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    Image { ztoc: Ztoc::parse(bytes.into()).unwrap(), ..truth }
}

fn second() -> Entry {
    Entry::file("second", vec![b's'; 700]).owner(1000, 1000)
}

fn lies() -> Vec<Entry> {
    vec![
        second().mode(0o4755),
        second().owner(0, 1000),
        second().owner(1000, 0),
        second().mtime(5, 0),
        Entry::file("sec0nd", vec![b's'; 700]).owner(1000, 1000),
        Entry::file("second", vec![b's'; 701]).owner(1000, 1000),
        Entry::file("second", vec![b's'; 600]).owner(1000, 1000),
    ]
}

async fn refused(rig: &Rig, entry: usize) {
    // The header is in another span than the content, maybe: all of the layer is read.
    for file in rig.image.files() {
        let _ = rig.read_all(file).await;
    }
    let error = rig.read(entry, 0..1).await.unwrap_err();
    assert!(matches!(&error, FetchError::False { .. }), "{error}");
    assert_eq!(rig.layer.stats().refused_entries, 1);
    for file in rig.image.files().into_iter().filter(|file| *file != entry) {
        rig.read_all(file).await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_whose_header_says_otherwise_is_refused_and_the_others_are_not() {
    for lie in lies() {
        let rig = Rig::new(lying(second(), lie, 4 << 20));
        let mut buffer = [0];
        assert!(matches!(rig.layer.try_read(1, 0, &mut buffer), Ok(None)));
        // With the very first read: the header is in the same span.
        let error = rig.read(1, 0..1).await.unwrap_err();
        assert!(matches!(&error, FetchError::False { .. }), "{error}");
        refused(&rig, 1).await;
    }
}

#[tokio::test]
async fn a_header_that_span_boundaries_cut_is_checked_when_all_parts_have_come() {
    // Not smaller: spans of a few bytes have the digests of others.
    for span_size in [100, 300, 511, 512, 513, 1000, 1024, 1536] {
        let rig = Rig::new(lying(second(), second().mode(0o4755), span_size));
        super::rig::within(rig.layer.fetcher().fetch_all_spans()).await;
        refused(&rig, 1).await;
    }
}

#[tokio::test]
async fn honest_headers_are_never_refused_however_they_are_cut() {
    let long = "n/".repeat(90) + "name";
    let entries = || {
        let pax = Entry::file(&long, vec![1; 3000]).xattr("user.k", vec![b'v'; 600]).mtime(-7, 5);
        [
            second(),
            pax,
            Entry::symlink("l", &long),
            Entry::hard_link("h", "second"),
            Entry::char_device("c", 1, 3),
            second(),
        ]
    };
    for span_size in [1, 100, 512, 1000, 5000] {
        let rig = Rig::new(Image::new(Compression::None, span_size, entries()));
        super::rig::within(rig.layer.fetcher().fetch_all_spans()).await;
        for file in rig.image.files() {
            rig.read_all(file).await.unwrap();
        }
        assert_eq!(rig.layer.stats().refused_entries, 0);
    }
}

#[tokio::test]
async fn what_was_refused_stays_refused_after_a_restart() {
    let rig = Rig::new(lying(second(), second().mode(0o4755), 4 << 20));
    refused(&rig, 1).await;
    let rig = rig.restarted();
    rig.fake.clear();
    refused(&rig, 1).await;
    // Everything was in the cache: no header has passed by.
    assert_eq!(rig.fake.requests(), []);
}

#[tokio::test]
async fn what_was_refused_is_refused_for_all_images_with_the_layer() {
    let rig = Rig::new(lying(second(), second().mode(0o4755), 4 << 20));
    let other = super::rig::lazy(&rig.image, rig.fake.clone() as _, &rig.source);
    rig.read_all(0).await.unwrap();
    assert!(matches!(other.try_read(1, 0, &mut [0]), Err(FetchError::False { .. })));
}
