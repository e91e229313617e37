//! Readers, writers and the evictor at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{BLOCK, Layout, content, open, read};
use crate::content::cache::CacheRoot;
use crate::content::cache::layer_regions_for_tests;

#[test]
fn nobody_ever_sees_a_wrong_byte() {
    let directory = tempfile::tempdir().unwrap();
    let root = CacheRoot::open(directory.path(), 2 << 20).unwrap();
    // Spans that cut blocks, and files that share regions.
    let layout = Layout::new(vec![70_000, 5, 1 << 20, 300_001, 2 << 20], &[100_003]);
    let cache = open(&root, &layout);
    let done = AtomicBool::new(false);
    let (hits, evicted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3_usize)
            .map(|seed| {
                let (layout, cache, done, hits) = (&layout, Arc::clone(&cache), &done, &hits);
                scope.spawn(move || {
                    let mut at = seed * 7919;
                    while !done.load(Ordering::Relaxed) {
                        at = at
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let file = (at >> 33) % layout.sizes.len();
                        let start = (at >> 20) % layout.sizes[file];
                        let end = layout.sizes[file].min(start + 3 * BLOCK);
                        if read(&cache, layout, file, start..end).is_some() {
                            hits.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let evictor = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                root.trim();
                for region in layer_regions_for_tests(&cache) {
                    evicted.fetch_add(usize::from(cache.evict(region).unwrap()), Ordering::Relaxed);
                    thread::yield_now();
                }
            }
        });
        // One writer a span, as `fetch` has it: two threads, each with every other span, some of them wrong.
        let writers: Vec<_> = (0..2)
            .map(|half| {
                let (layout, cache) = (&layout, Arc::clone(&cache));
                scope.spawn(move || {
                    for round in 0..12 {
                        for span in (half..layout.spans.len()).step_by(2) {
                            if (round + span) % 5 == 0 {
                                layout.write(&cache, span, |_, _| 0, false);
                            }
                            layout.write(&cache, span, content, true);
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        evictor.join().unwrap();
        assert!(results.iter().all(Result::is_ok));
    });
    assert!(hits.into_inner() > 100 && evicted.into_inner() > 10);
    assert_eq!(root.used(), cache.present());
}
