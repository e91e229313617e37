//! What a start has read, as it grows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use soci_index::recording::{MAX_READS, RecordedLayer, RecordedRead, Recording};
use tokio::time::Instant;

/// Reads of whoever prepares a container that are kept.
const MAX_PREPARING: usize = 16;

/// What was read so far.
pub(super) struct Draft {
    began: Instant,
    advanced: Instant,
    pub(super) layers: Vec<RecordedLayer>,
    /// Whether all is asked for that is read.
    pub(super) cold: bool,
    own: Reads,
    unattributed: Reads,
    /// Of the latter, those from outside.
    preparing: usize,
    pub(super) waited: u64,
}

/// Reads, in order, with no byte twice.
#[derive(Default)]
struct Reads {
    covered: HashMap<(u32, u32), Covered>,
    reads: Vec<RecordedRead>,
}

impl Draft {
    pub(super) fn new(layers: Vec<RecordedLayer>, cold: bool) -> Self {
        let now = Instant::now();
        let (own, unattributed) = (Reads::default(), Reads::default());
        Self { began: now, advanced: now, layers, cold, own, unattributed, preparing: 0, waited: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.own.reads.len() + self.unattributed.reads.len()
    }

    /// A container is about to be started: as long as nothing was read, this is the beginning.
    pub(super) fn prepared(&mut self) {
        self.advanced = Instant::now();
        if self.len() == 0 {
            self.began = self.advanced;
        }
    }

    /// When something was read that had not been read before.
    pub(super) fn advanced(&self) -> Instant {
        self.advanced
    }

    /// What the container has read itself.
    pub(super) fn own(&self) -> &[RecordedRead] {
        &self.own.reads
    }

    pub(super) fn bytes(&self) -> u64 {
        let reads = self.own.reads.iter().chain(&self.unattributed.reads);
        reads.map(|read| read.range.end - read.range.start).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= MAX_READS
    }

    /// Adds what the container has read.
    pub(super) fn add(&mut self, layer: u32, entry: u32, range: Range<u64>, waits: bool) {
        if !self.is_full() {
            let added = self.own.add(layer, entry, range, self.began);
            self.advance(added, waits);
        }
    }

    /// Adds what nobody has read, as far as can be seen.
    pub(super) fn add_unattributed(&mut self, layer: u32, entry: u32, range: Range<u64>, waits: bool) {
        if !self.is_full() {
            let added = self.unattributed.add(layer, entry, range, self.began);
            self.advance(added, waits);
        }
    }

    /// Adds what somebody outside has read, as long as it may be for the container to come.
    pub(super) fn prepare(&mut self, layer: u32, entry: u32, range: Range<u64>, waits: bool) {
        if self.own.reads.is_empty() && self.preparing < MAX_PREPARING {
            self.preparing += 1;
            self.add_unattributed(layer, entry, range, waits);
        }
    }

    fn advance(&mut self, added: bool, waits: bool) {
        if added {
            self.advanced = Instant::now();
            self.waited += u64::from(waits);
        }
    }

    /// What the container did not read itself.
    pub(super) fn others(&self) -> Vec<RecordedRead> {
        let mut covered = self.own.covered.clone();
        let left = self.unattributed.reads.iter().filter_map(|read| {
            let range = covered.entry((read.layer, read.entry)).or_default().add(read.range.clone())?;
            Some(RecordedRead { range, ..read.clone() })
        });
        left.collect()
    }
}

impl Reads {
    /// Adds a read; whether there was anything new in it.
    fn add(&mut self, layer: u32, entry: u32, range: Range<u64>, began: Instant) -> bool {
        if range.is_empty() {
            return false;
        }
        let Some(new) = self.covered.entry((layer, entry)).or_default().add(range) else { return false };
        let milliseconds = began.elapsed().as_millis() as u64;
        match self.reads.last_mut() {
            Some(last) if (last.layer, last.entry, last.range.end) == (layer, entry, new.start) => {
                last.range.end = new.end;
            }
            _ => self.reads.push(RecordedRead { layer, entry, range: new, milliseconds }),
        }
        true
    }
}

/// Adds to a recording what a later one has of the same layers and the first has not.
pub(super) fn continued(mut first: Recording, later: &Recording) -> Recording {
    let mut draft = Draft::new(first.layers.clone(), first.cold);
    let known = first.unattributed.is_some() || later.unattributed.is_some();
    for (reads, kept) in [
        (std::mem::take(&mut first.reads), &mut draft.own),
        (first.unattributed.take().unwrap_or_default(), &mut draft.unattributed),
    ] {
        for read in &reads {
            kept.covered.entry((read.layer, read.entry)).or_default().add(read.range.clone());
        }
        kept.reads = reads;
    }
    let place = |read: &RecordedRead| {
        let wanted = later.layers.get(read.layer as usize)?;
        u32::try_from(first.layers.iter().position(|layer| layer == wanted)?).ok()
    };
    for read in &later.reads {
        if let Some(layer) = place(read) {
            draft.add(layer, read.entry, read.range.clone(), false);
        }
    }
    for read in later.unattributed.iter().flatten() {
        if let Some(layer) = place(read) {
            draft.add_unattributed(layer, read.entry, read.range.clone(), false);
        }
    }
    Recording {
        unattributed: known.then(|| draft.others()),
        reads: draft.own.reads,
        waited: first.waited + later.waited,
        taken: later.taken,
        ..first
    }
}

/// Whether a recording is worth more than the one that there is. A start of which part was in the page cache, or that
/// read little, is no reason to forget a better one. One that was made without looking at who reads may have what
/// others did.
pub(super) fn is_better(known: Option<&Recording>, new: &Recording) -> bool {
    known.is_none_or(|known| new.cold && (known.unattributed.is_none() || new.bytes() >= known.bytes() / 2))
}

/// Bytes of a file that were read.
#[derive(Debug, Default, Clone)]
struct Covered(BTreeMap<u64, u64>);

impl Covered {
    /// Adds a range, and returns the part of it from its first new byte to its last; `None` if there is none.
    fn add(&mut self, range: Range<u64>) -> Option<Range<u64>> {
        let Range { mut start, mut end } = range;
        if let Some((_, covered)) = self.0.range(..=start).next_back() {
            start = start.max(*covered);
        }
        if start >= end {
            return None;
        }
        if let Some((first, covered)) = self.0.range(..end).next_back()
            && *covered >= end
            && *first > start
        {
            end = *first;
        }
        // What lies in between is part of it now, and so are neighbours.
        let inside: Vec<u64> = self.0.range(start..=end).map(|(first, _)| *first).collect();
        let mut whole = start..end;
        for first in inside {
            whole.end = whole.end.max(self.0.remove(&first).unwrap_or_default());
        }
        match self.0.range_mut(..start).next_back() {
            Some((_, covered)) if *covered >= start => *covered = whole.end.max(*covered),
            _ => drop(self.0.insert(whole.start, whole.end)),
        }
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use registry::Digest;

    use super::*;

    fn draft() -> Draft {
        let layer = |name: &[u8]| RecordedLayer { layer: Digest::of(name), ztoc: Digest::of(b"ztoc") };
        Draft::new(vec![layer(b"lower"), layer(b"upper")], true)
    }

    fn recording(draft: Draft, cold: bool) -> Recording {
        Recording {
            image: "r.example/a:b".into(),
            manifest: Digest::of(b"manifest"),
            index: Digest::of(b"index"),
            taken: 1,
            cold,
            waited: draft.waited,
            unattributed: Some(draft.others()),
            layers: draft.layers,
            reads: draft.own.reads,
        }
    }

    fn ranges(draft: &Draft) -> Vec<(u32, u32, u64, u64)> {
        draft
            .own
            .reads
            .iter()
            .map(|read| (read.layer, read.entry, read.range.start, read.range.end))
            .collect()
    }

    #[test]
    fn reads_are_kept_in_order_and_no_byte_twice() {
        let mut draft = draft();
        draft.add(0, 5, 0..4096, true);
        // Told again when it has come.
        draft.add(0, 5, 0..4096, false);
        draft.add(0, 5, 4096..8192, true);
        draft.add(1, 5, 0..10, false);
        draft.add(0, 5, 8192..9000, false);
        draft.add(0, 5, 4000..9100, false);
        draft.add(0, 7, 0..0, true);
        assert_eq!(ranges(&draft), [(0, 5, 0, 8192), (1, 5, 0, 10), (0, 5, 8192, 9100)]);
        assert_eq!(draft.waited, 2);
    }

    #[test]
    fn a_recording_has_an_end() {
        let mut draft = draft();
        for at in 0..MAX_READS as u64 + 10 {
            draft.add(0, 0, at * 10..at * 10 + 1, true);
        }
        assert!(draft.is_full());
        assert_eq!(draft.own.reads.len(), MAX_READS);
    }

    /// Against a set of bytes.
    #[test]
    fn covered_ranges_are_those_of_a_set() {
        let mut state = 12345_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..300 {
            let (mut covered, mut set) = (Covered::default(), std::collections::BTreeSet::new());
            for _ in 0..40 {
                let start = random(100);
                let range = start..start + 1 + random(20);
                let new: Vec<u64> = range.clone().filter(|byte| !set.contains(byte)).collect();
                let expected = new.first().zip(new.last()).map(|(first, last)| *first..*last + 1);
                assert_eq!(covered.add(range.clone()), expected, "{range:?} to {set:?}");
                set.extend(range);
                let all: Vec<u64> = covered.0.iter().flat_map(|(start, end)| *start..*end).collect();
                assert_eq!(all, set.iter().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_warm_or_poor_start_never_replaces_a_recording() {
        let of = |bytes: u64, cold| {
            let mut draft = draft();
            draft.add(0, 0, 0..bytes, true);
            recording(draft, cold)
        };
        assert!(is_better(None, &of(1, false)));
        assert!(!is_better(Some(&of(10, false)), &of(1000, false)));
        assert!(!is_better(Some(&of(1000, true)), &of(499, true)));
        assert!(is_better(Some(&of(1000, true)), &of(500, true)));
        assert!(is_better(Some(&of(1000, false)), &of(2000, true)));
        // It may have what neighbours read.
        let old = Recording { unattributed: None, ..of(1000, true) };
        assert!(is_better(Some(&old), &of(1, true)) && !is_better(Some(&old), &of(1000, false)));
    }

    #[test]
    fn a_start_that_was_interrupted_goes_on() {
        let (mut first, mut later) = (draft(), draft());
        later.layers.reverse();
        first.add(0, 1, 0..10, true);
        later.add(1, 1, 5..20, true);
        later.add(0, 9, 0..1, false);
        let whole = continued(recording(first, true), &recording(later, false));
        assert!(whole.cold);
        let reads: Vec<_> =
            whole.reads.iter().map(|read| (read.layer, read.entry, read.range.clone())).collect();
        assert_eq!(reads, [(0, 1, 0..20), (1, 9, 0..1)]);
        assert_eq!(whole.waited, 2);
    }

    #[test]
    fn what_is_nobodys_is_kept_apart() {
        let mut draft = draft();
        for entry in 0..MAX_PREPARING as u32 + 5 {
            draft.prepare(0, entry, 0..10, false);
        }
        draft.add(0, 3, 0..4, true);
        draft.add_unattributed(1, 7, 0..10, true);
        draft.prepare(1, 8, 0..10, true);
        let first = recording(draft, true);
        assert_eq!(
            first.reads.iter().map(|read| (read.entry, read.range.clone())).collect::<Vec<_>>(),
            [(3, 0..4)]
        );
        let others = |recording: &Recording| {
            let others = recording.unattributed.iter().flatten();
            others.map(|read| (read.layer, read.entry, read.range.clone())).collect::<Vec<_>>()
        };
        let mut expected: Vec<_> = (0..MAX_PREPARING as u32).map(|entry| (0, entry, 0..10)).collect();
        expected[3].2 = 4..10;
        expected.push((1, 7, 0..10));
        assert_eq!(others(&first), expected);
        assert_eq!(first.waited, 2);

        let mut later = self::draft();
        later.add(1, 7, 0..10, true);
        let whole = continued(first, &recording(later, false));
        expected.pop();
        assert_eq!(others(&whole), expected);
        assert_eq!(whole.reads.len(), 2);
    }
}
