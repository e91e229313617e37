//! Random operations, against a set of the bytes that are known.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{BLOCK, Layout, content, open, read};
use crate::content::cache::CacheRoot;
use crate::content::cache::layer_regions_for_tests;

#[derive(Debug, Clone)]
enum Step {
    /// A span arrives and is right.
    Publish(prop::sample::Index),
    /// A span arrives and is wrong.
    Fail(prop::sample::Index),
    Read(prop::sample::Index, prop::sample::Index, prop::sample::Index),
    Evict(prop::sample::Index),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    prop_oneof![
        8 => any::<Index>().prop_map(Step::Publish),
        2 => any::<Index>().prop_map(Step::Fail),
        6 => any::<(Index, Index, Index)>().prop_map(|(file, start, end)| Step::Read(file, start, end)),
        1 => any::<Index>().prop_map(Step::Evict),
        1 => Just(Step::Reopen),
    ]
}

/// Sizes around the boundaries of blocks, and a few that take more than a region.
fn layout() -> impl Strategy<Value = Layout> {
    let size = prop_oneof![
        4 => 1..6000_usize,
        2 => prop::sample::select(vec![1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 7]),
        1 => 0..1_usize,
        1 => Just(300 * BLOCK + 5),
    ];
    let length = prop_oneof![
        3 => 300..9000_usize,
        2 => prop::sample::select(vec![1000, BLOCK, BLOCK - 1, BLOCK + 1, 2 * BLOCK]),
        1 => Just(200 * BLOCK + 1),
    ];
    (vec(size, 1..8), vec(length, 1..4))
        .prop_map(|(sizes, lengths)| Layout::new(sizes, &lengths))
        .prop_filter("something to write", |layout| !layout.spans.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_read_gives_the_right_bytes_or_nothing(layout in layout(), steps in vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let mut root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
        let mut cache = open(&root, &layout);
        // Whole blocks that must be there, and bytes of blocks that were published at some time.
        let mut known: HashSet<(usize, usize)> = HashSet::new();
        for step in steps {
            match step {
                Step::Publish(span) => {
                    let span = span.index(layout.spans.len());
                    layout.write(&cache, span, content, true);
                    for (file, range) in layout.pieces(span) {
                        // Only blocks that lie in it as a whole, for a simple model.
                        let size = layout.sizes[file];
                        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
                            if block * BLOCK >= range.start && ((block + 1) * BLOCK).min(size) <= range.end {
                                known.insert((file, block));
                            }
                        }
                    }
                }
                // Its bytes are not those of the file: if any of them is ever seen, a read below panics.
                Step::Fail(span) => layout.write(&cache, span.index(layout.spans.len()), |_, _| 0, false),
                Step::Read(file, start, end) => {
                    let file = file.index(layout.sizes.len());
                    let (a, b) = (start.index(layout.sizes[file] + 1), end.index(layout.sizes[file] + 1));
                    let range = a.min(b)..a.max(b);
                    let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
                    let expected = range.is_empty() || blocks.clone().all(|block| known.contains(&(file, block)));
                    let found = read(&cache, &layout, file, range).is_some();
                    // Parts may have made more blocks whole than the model knows of.
                    prop_assert!(found || !expected);
                }
                Step::Evict(region) => {
                    let regions = layer_regions_for_tests(&cache);
                    if !regions.is_empty() {
                        let region = regions[region.index(regions.len())];
                        prop_assert!(cache.evict(region).unwrap());
                        known.retain(|(file, block)| {
                            (layout.stream(*file) as usize / BLOCK + block) / 256 != region as usize
                        });
                    }
                }
                Step::Reopen => {
                    let used = root.used();
                    drop(cache);
                    prop_assert_eq!(root.used(), used);
                    drop(root);
                    root = CacheRoot::open(directory.path(), u64::MAX).unwrap();
                    cache = open(&root, &layout);
                    prop_assert_eq!(root.used(), used);
                }
            }
            prop_assert_eq!(root.used(), cache.present());
        }
        // In the end all spans come, in any order, and all is there.
        for span in (0..layout.spans.len()).rev() {
            layout.write(&cache, span, content, true);
        }
        for (file, size) in layout.sizes.iter().enumerate() {
            prop_assert!(read(&cache, &layout, file, 0..*size).is_some(), "file {}", file);
        }
        prop_assert_eq!(root.used(), u64::from(layout.blocks()) * BLOCK as u64);
    }
}
