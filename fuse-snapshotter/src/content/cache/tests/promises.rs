//! What the cache promises, one by one.

use std::time::Duration;

use super::{BLOCK, Layout, content, flip, open, read};
use crate::content::cache::{BLOCK_SIZE, CacheError, CacheRoot};

fn filled(root: &CacheRoot, layout: &Layout) {
    let cache = open(root, layout);
    for span in 0..layout.spans.len() {
        layout.write(&cache, span, content, true);
    }
}

#[test]
fn one_process_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), 1).unwrap();
    assert!(matches!(CacheRoot::open(directory.path(), 1), Err(CacheError::InUse(_))));
    drop(root);
    CacheRoot::open(directory.path(), 1).unwrap();
}

#[test]
fn a_layer_is_opened_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    let (a, b) = (root.layer("l", "z", 3).unwrap(), root.layer("l", "z", 3).unwrap());
    assert!(std::sync::Arc::ptr_eq(&a, &b));
    let other = root.layer("l", "other", 3).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&a, &other));
    assert_eq!((a.len(), a.is_empty(), a.present()), (3, false, 0));
    assert!(root.layer("l", "none", 0).unwrap().is_empty());
    assert!(root.layer("l", "none", 0).unwrap().read(0, &mut []).unwrap());
}

#[test]
fn a_span_that_is_dropped_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    let layout = Layout::new(vec![5000, 3 << 20], &[1 << 30]);
    let cache = open(&root, &layout);
    layout.write(&cache, 0, |_, _| 9, false);
    assert_eq!(root.used(), 0);
    assert_eq!(read(&cache, &layout, 0, 0..1), None);
    layout.write(&cache, 0, content, true);
    assert_eq!(read(&cache, &layout, 1, 0..3 << 20), Some(()));
}

#[test]
fn a_wrong_span_does_not_touch_what_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    // The second span begins and ends within blocks, and is long enough to be written before it is complete.
    let layout = Layout::new(vec![3 << 20], &[1000, (2 << 20) + 500, 1 << 20]);
    let cache = open(&root, &layout);
    layout.write(&cache, 1, content, true);
    assert!(cache.has_part(0, &(1000..4096)));
    layout.write(&cache, 1, |_, _| 0, false);
    // Its part of the first block counts no longer; its whole blocks were left alone.
    assert!(!cache.has_part(0, &(1000..4096)));
    layout.write(&cache, 0, content, true);
    assert_eq!(read(&cache, &layout, 0, 0..10), None);
    assert_eq!(read(&cache, &layout, 0, BLOCK..2 << 20), Some(()));
    layout.write(&cache, 1, content, true);
    layout.write(&cache, 2, content, true);
    for span in [0, 1, 2] {
        assert_eq!(read(&cache, &layout, 0, 0..3 << 20), Some(()));
        layout.write(&cache, span, |_, _| 0, false);
    }
    assert_eq!(read(&cache, &layout, 0, 0..3 << 20), Some(()));
}

#[test]
fn an_eviction_between_writing_and_publishing_makes_no_holes() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    let layout = Layout::new(vec![2 << 20], &[1 << 19, 3 << 19]);
    let cache = open(&root, &layout);
    layout.write(&cache, 0, content, true);
    let mut writer = crate::content::cache::ContentWriter::new(std::sync::Arc::clone(&cache));
    let data: Vec<u8> = (1 << 19..2 << 20).map(|at| content(0, at)).collect();
    writer.write(1 << 19, &data, 2 << 20);
    // The first region holds what the writer has written, and cannot go.
    assert!(!cache.evict(0).unwrap());
    writer.publish();
    assert_eq!(read(&cache, &layout, 0, 0..2 << 20), Some(()));
    assert!(cache.evict(0).unwrap());
    assert_eq!(read(&cache, &layout, 0, 0..1), None);
    assert_eq!(read(&cache, &layout, 0, 1 << 20..2 << 20), Some(()));
}

#[test]
fn flipped_bytes_are_found_after_a_restart() {
    let layout = Layout::new(vec![10 * BLOCK], &[4 * BLOCK]);
    for name in ["data", "blocks"] {
        let directory = tempfile::tempdir().unwrap();
        let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
        filled(&root, &layout);
        drop(root);
        let unit = if name == "data" { BLOCK as u64 } else { 4 };
        flip(&directory.path().join("layer-ztoc").join(name), 3 * unit + 1);
        let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
        let cache = open(&root, &layout);
        assert_eq!(read(&cache, &layout, 0, 2 * BLOCK..5 * BLOCK), None, "{name}");
        assert_eq!((root.used(), cache.has(3)), (9 * BLOCK_SIZE, false));
        assert_eq!(read(&cache, &layout, 0, 4 * BLOCK..10 * BLOCK), Some(()));
        // It is fetched again like anything that is missing.
        layout.write(&cache, 0, content, true);
        assert_eq!(read(&cache, &layout, 0, 0..10 * BLOCK), Some(()));
    }
}

#[test]
fn a_read_that_ends_within_a_block_vouches_for_no_more_than_it_read() {
    let layout = Layout::new(vec![BLOCK], &[BLOCK]);
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    layout.write(&open(&root, &layout), 0, |_, at| u8::from(at < 100), true);
    drop(root);
    // Among the zeros at the end of the block.
    flip(&directory.path().join("layer-ztoc/data"), 2000);
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    let cache = open(&root, &layout);
    let mut start = [0; 200];
    assert!(cache.read(0, &mut start).unwrap());
    assert!(start.iter().enumerate().all(|(at, byte)| *byte == u8::from(at < 100)));
    let mut end = [0; 100];
    assert!(!cache.read(1950, &mut end).unwrap(), "the flipped byte is in it");
    assert!(!cache.has(0));
}

#[test]
fn files_of_another_size_start_anew() {
    let layout = Layout::new(vec![10 * BLOCK], &[4 * BLOCK]);
    for (name, size) in [("data", 9 * BLOCK), ("blocks", 39), ("blocks", 0), ("data", 11 * BLOCK)] {
        let directory = tempfile::tempdir().unwrap();
        let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
        filled(&root, &layout);
        drop(root);
        let path = directory.path().join("layer-ztoc").join(name);
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size as u64).unwrap();
        let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
        let cache = open(&root, &layout);
        assert_eq!((read(&cache, &layout, 0, 0..1), root.used()), (None, 0), "{name} {size}");
        filled(&root, &layout);
        assert_eq!(read(&cache, &layout, 0, 0..10 * BLOCK), Some(()));
    }
}

#[test]
fn a_data_file_that_is_gone_is_only_missing() {
    let layout = Layout::new(vec![10 * BLOCK], &[4 * BLOCK]);
    let directory = tempfile::tempdir().unwrap();
    filled(&CacheRoot::open(directory.path(), u64::MAX).unwrap(), &layout);
    std::fs::remove_file(directory.path().join("layer-ztoc/data")).unwrap();
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    assert_eq!(read(&open(&root, &layout), &layout, 0, 0..1), None);
}

#[test]
fn the_limit_holds_for_open_layers_the_oldest_going_first() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), 8 << 20).unwrap();
    let layout = Layout::new(vec![16 << 20], &[1 << 20]);
    let cache = open(&root, &layout);
    for span in 0..16 {
        layout.write(&cache, span, content, true);
        root.trim();
        assert!(root.used() <= 8 << 20);
        // What has just come is there, and so is what is always in use.
        assert_eq!(read(&cache, &layout, 0, span << 20..(span + 1) << 20), Some(()), "{span}");
        assert_eq!(read(&cache, &layout, 0, 0..BLOCK), Some(()), "{span}");
        // Longer than the clock's resolution.
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(read(&cache, &layout, 0, 0..BLOCK), Some(()));
    }
    assert_eq!(read(&cache, &layout, 0, 2 << 20..(2 << 20) + 1), None);
    let data = std::fs::metadata(cache.directory().join("data")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert!(data.blocks() * 512 <= 9 << 20, "{} bytes on disk", data.blocks() * 512);
}

#[test]
fn the_limit_holds_for_layers_that_are_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(vec![3 << 20], &[1 << 20]);
    let fill = |root: &CacheRoot, name: &str| {
        let cache = root.layer(name, "z", layout.blocks()).unwrap();
        (0..3).for_each(|span| layout.write(&cache, span, content, true));
        root.trim();
        drop(cache);
        std::thread::sleep(Duration::from_millis(15));
    };
    let root = CacheRoot::open(directory.path(), 8 << 20).unwrap();
    fill(&root, "a");
    fill(&root, "b");
    assert_eq!((root.used(), root.is_full()), (6 << 20, false));
    fill(&root, "c");
    assert!(root.used() <= 8 << 20);
    assert!(!directory.path().join("a-z").exists() && directory.path().join("b-z").exists());
    drop(root);
    // What an earlier process left counts, too.
    let root = CacheRoot::open(directory.path(), 5 << 20).unwrap();
    assert!((6 << 20..7 << 20).contains(&root.used()), "{}", root.used());
    root.trim();
    assert!(root.used() <= 5 << 20);
    assert!(!directory.path().join("b-z").exists() && directory.path().join("c-z").exists());
    // Opening counts the blocks instead.
    let cache = root.layer("c", "z", layout.blocks()).unwrap();
    assert_eq!(root.used(), cache.present());
}

#[test]
fn what_is_open_is_not_removed_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), 1 << 20).unwrap();
    let layout = Layout::new(vec![3 << 20], &[1 << 20]);
    let cache = open(&root, &layout);
    std::fs::write(cache.directory().join("ztoc"), "z").unwrap();
    let pin = cache.pin(0..1);
    (0..3).for_each(|span| layout.write(&cache, span, content, true));
    root.trim();
    // The pinned region stays, whatever the limit.
    assert_eq!(read(&cache, &layout, 0, 0..1 << 20), Some(()));
    assert_eq!(root.used(), 1 << 20);
    assert!(cache.directory().join("ztoc").exists());
    drop(pin);
    root.trim();
    assert_eq!(root.used(), 1 << 20);
}

#[test]
fn a_layer_that_claims_to_be_huge_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
    for _ in 0..2 {
        let cache = root.layer("l", "z", 1 << 28).unwrap();
        let mut buffer = [0; 10];
        assert!(!cache.read((1 << 40) - 4096, &mut buffer).unwrap());
        assert!(!cache.read(u64::MAX - 8192, &mut buffer).unwrap());
        assert_eq!(cache.present(), 0);
    }
}
