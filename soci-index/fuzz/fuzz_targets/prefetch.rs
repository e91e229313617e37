//! A prefetch artifact of anybody: every span that is fetched exists, and comes once.
//!
//! The input is the number of spans of the layer (a byte) and the artifact.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use soci_index::prefetch::{PrefetchArtifact, SpanRange, interleave};
use testdata::seeds;

fn seeds() -> Vec<Vec<u8>> {
    let artifact = |ranges: &[(u32, u32, i64)]| {
        let ranges = ranges.iter().map(|(start, end, priority)| SpanRange {
            start: *start,
            end: *end,
            priority: *priority,
        });
        PrefetchArtifact::in_order(ranges).expect("there are ranges").encode()
    };
    let artifacts = [
        artifact(&[(10, 15, 0), (50, 55, 0)]),
        artifact(&[(7, 7, 3), (0, 4, 1), (100, 200, 2)]),
        artifact(&[(0, i32::MAX as u32, -1)]),
    ];
    artifacts.iter().map(|artifact| [&[99], &artifact[..]].concat()).collect()
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    let Some((spans, json)) = data.split_first() else { return };
    let Ok(artifact) = PrefetchArtifact::parse(json) else { return };
    let spans = usize::from(*spans);
    let ranges = artifact.ranges();
    assert!(!ranges.is_empty() && ranges.iter().all(|range| range.start <= range.end && range.count() > 0));
    assert_eq!(PrefetchArtifact::parse(&artifact.encode()).expect("what is written can be read"), artifact);
    let within = artifact.within(spans);
    assert!(within.iter().all(|range| range.start < range.end && range.end <= spans), "only spans that exist");
    assert!(within.windows(2).all(|pair| pair[0].end < pair[1].start), "in order, each once");
    if artifact.check(spans).is_ok() {
        let named = |span: usize| ranges.iter().any(|range| (range.start as usize..=range.end as usize).contains(&span));
        let fetched = |span: usize| within.iter().any(|range| range.contains(&span));
        assert!((0..spans).all(|span| named(span) == fetched(span)), "all that is named");
    }
    let mut seen = BTreeSet::new();
    for (layer, range) in interleave(&[(0, &artifact), (1, &artifact)]) {
        for span in [range.start, range.end] {
            assert!(range.start == range.end || range.start < range.end);
            seen.insert((layer, span));
        }
    }
    let total: u64 = interleave(&[(0, &artifact)]).iter().map(|(_, range)| range.count()).sum();
    assert!(total <= 1 << 31 && total <= artifact.total_spans(), "a span comes once, however often it is named");
    assert_eq!(seen.iter().filter(|(layer, _)| *layer == 0).count() * 2, seen.len(), "layers are treated alike");
});
