//! BlockRanges of blocks that a span boundary cuts, until the other parts arrive.

use std::ops::Range;

/// Ranges within a block, in ascending order; neighbours are joined.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct BlockRanges(Vec<Range<u16>>);

impl BlockRanges {
    pub(crate) fn add(&mut self, part: Range<u16>) {
        if part.is_empty() {
            return;
        }
        let mut joined = part;
        self.0.retain(|old| {
            let apart = old.end < joined.start || joined.end < old.start;
            if !apart {
                joined = joined.start.min(old.start)..joined.end.max(old.end);
            }
            apart
        });
        let at = self.0.partition_point(|old| old.start < joined.start);
        self.0.insert(at, joined);
    }

    /// Takes a range away, and no more than it.
    pub(crate) fn subtract(&mut self, part: &Range<u16>) {
        self.0 = std::mem::take(&mut self.0)
            .into_iter()
            .flat_map(|old| {
                [
                    old.start..old.end.min(part.start).max(old.start),
                    old.start.max(part.end).min(old.end)..old.end,
                ]
            })
            .filter(|rest| !rest.is_empty())
            .collect();
    }

    pub(crate) fn has(&self, part: &Range<u16>) -> bool {
        part.is_empty() || self.0.iter().any(|old| old.start <= part.start && part.end <= old.end)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
    fn parts_are_a_set_of_bytes() {
        // Against a set of bytes, for all pairs of ranges in a small block.
        let ranges = || (0..8_u16).flat_map(|start| (start..=8).map(move |end| start..end));
        for (a, b) in ranges().flat_map(|a| ranges().map(move |b| (a.clone(), b))) {
            let mut parts = BlockRanges::default();
            parts.add(a.clone());
            parts.add(b.clone());
            let in_union = |byte: u16| a.contains(&byte) || b.contains(&byte);
            for c in ranges() {
                assert_eq!(parts.has(&c), c.clone().all(in_union), "{a:?} {b:?} {c:?}");
                let mut rest = parts.clone();
                rest.subtract(&c);
                for byte in 0..8 {
                    assert_eq!(rest.has(&(byte..byte + 1)), in_union(byte) && !c.contains(&byte));
                }
            }
        }
        let mut parts = BlockRanges::default();
        for part in [3..5, 0..1, 1..3] {
            parts.add(part);
        }
        assert_eq!(parts.0, [0..5]);
    }
}
