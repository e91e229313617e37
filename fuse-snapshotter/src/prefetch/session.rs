//! A start being recorded.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use registry::Digest;
use soci_index::recording::{MAX_READS, RecordedLayer, RecordedRead, Recording};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Start;
use crate::cache::lock;
use crate::fetch::ReadObserver;

/// A recording that is being made. Dropping it ends it.
pub(super) struct Session {
    image: String,
    manifest: Digest,
    index: Digest,
    cold: bool,
    draft: Arc<Mutex<Draft>>,
    /// Tells that there is nothing to wait for any more.
    pub(super) stop: Notify,
    /// The layers tell these as long as they live.
    _taps: Vec<Arc<dyn ReadObserver>>,
}

/// What was read so far.
pub(super) struct Draft {
    began: Instant,
    /// When something was read that had not been read before.
    advanced: Instant,
    layers: Vec<RecordedLayer>,
    covered: HashMap<(u32, u32), Covered>,
    reads: Vec<RecordedRead>,
    waited: u64,
}

/// Ears at one layer.
struct Tap {
    draft: Arc<Mutex<Draft>>,
    layer: u32,
}

impl ReadObserver for Tap {
    fn read(&self, entry: usize, range: Range<u64>, waits: bool) {
        if let Ok(entry) = u32::try_from(entry) {
            lock(&self.draft).add(self.layer, entry, range, waits);
        }
    }
}

impl Session {
    /// Begins to record what is read of the layers.
    pub(super) fn begin(start: &Start) -> Self {
        let layers = start
            .layers
            .iter()
            .map(|layer| RecordedLayer { layer: layer.key().layer.clone(), ztoc: layer.key().ztoc.clone() });
        let draft = Arc::new(Mutex::new(Draft::new(layers.collect())));
        let taps = start.layers.iter().zip(0..).map(|(layer, number)| {
            let tap: Arc<dyn ReadObserver> = Arc::new(Tap { draft: Arc::clone(&draft), layer: number });
            layer.lazy().observe(&tap);
            tap
        });
        Self {
            image: start.image.clone(),
            manifest: start.manifest.clone(),
            index: start.index.clone(),
            cold: start.layers.iter().all(|layer| layer.is_cold()),
            stop: Notify::new(),
            _taps: taps.collect(),
            draft,
        }
    }

    /// A container is about to be started: as long as nothing was read, this is the beginning.
    pub(super) fn prepared(&self) {
        let mut draft = lock(&self.draft);
        let now = Instant::now();
        draft.advanced = now;
        if draft.reads.is_empty() {
            draft.began = now;
        }
    }

    /// Waits until nothing new was read for `quiet`, or it has taken `longest`, or it is to stop.
    pub(super) async fn over(&self, quiet: Duration, longest: Duration) {
        let last = Instant::now() + longest;
        loop {
            let end = {
                let draft = lock(&self.draft);
                if draft.is_full() { Instant::now() } else { last.min(draft.advanced + quiet) }
            };
            if end <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                () = self.stop.notified() => return,
            }
        }
    }

    /// Reads and bytes so far.
    pub(super) fn progress(&self) -> (usize, u64) {
        let draft = lock(&self.draft);
        (draft.reads.len(), draft.reads.iter().map(|read| read.range.end - read.range.start).sum())
    }

    /// What was recorded; `None` if nothing was read.
    pub(super) fn recording(&self) -> Option<Recording> {
        let draft = lock(&self.draft);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (!draft.reads.is_empty()).then(|| Recording {
            image: self.image.clone(),
            manifest: self.manifest.clone(),
            index: self.index.clone(),
            taken: now.as_secs(),
            cold: self.cold,
            waited: draft.waited,
            layers: draft.layers.clone(),
            reads: draft.reads.clone(),
        })
    }
}

impl Draft {
    fn new(layers: Vec<RecordedLayer>) -> Self {
        let now = Instant::now();
        Self { began: now, advanced: now, layers, covered: HashMap::new(), reads: Vec::new(), waited: 0 }
    }

    fn is_full(&self) -> bool {
        self.reads.len() >= MAX_READS
    }

    fn add(&mut self, layer: u32, entry: u32, range: Range<u64>, waits: bool) {
        if range.is_empty() || self.is_full() {
            return;
        }
        let Some(new) = self.covered.entry((layer, entry)).or_default().add(range) else { return };
        let now = Instant::now();
        self.advanced = now;
        self.waited += u64::from(waits);
        let milliseconds = now.saturating_duration_since(self.began).as_millis() as u64;
        match self.reads.last_mut() {
            Some(last) if (last.layer, last.entry, last.range.end) == (layer, entry, new.start) => {
                last.range.end = new.end;
            }
            _ => self.reads.push(RecordedRead { layer, entry, range: new, milliseconds }),
        }
    }
}

/// Adds to a recording what a later one has of the same layers and the first has not.
pub(super) fn continued(mut first: Recording, later: &Recording) -> Recording {
    let mut draft = Draft::new(first.layers.clone());
    for read in &first.reads {
        draft.covered.entry((read.layer, read.entry)).or_default().add(read.range.clone());
    }
    draft.reads = std::mem::take(&mut first.reads);
    for read in &later.reads {
        let known = later.layers.get(read.layer as usize);
        let known = known.and_then(|wanted| draft.layers.iter().position(|layer| layer == wanted));
        if let Some(layer) = known.and_then(|layer| u32::try_from(layer).ok()) {
            draft.add(layer, read.entry, read.range.clone(), false);
        }
    }
    Recording { reads: draft.reads, waited: first.waited + later.waited, taken: later.taken, ..first }
}

/// Whether a recording is worth more than the one that there is. A start of which part was in the page cache, or that read
/// little, is no reason to forget a better one.
pub(super) fn is_better(known: Option<&Recording>, new: &Recording) -> bool {
    known.is_none_or(|known| new.cold && new.bytes() >= known.bytes() / 2)
}

/// Bytes of a file that were read.
#[derive(Debug, Default)]
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
    use super::*;

    fn draft() -> Draft {
        let layer = |name: &[u8]| RecordedLayer { layer: Digest::of(name), ztoc: Digest::of(b"ztoc") };
        Draft::new(vec![layer(b"lower"), layer(b"upper")])
    }

    fn recording(draft: Draft, cold: bool) -> Recording {
        Recording {
            image: "r.example/a:b".into(),
            manifest: Digest::of(b"manifest"),
            index: Digest::of(b"index"),
            taken: 1,
            cold,
            waited: draft.waited,
            layers: draft.layers,
            reads: draft.reads,
        }
    }

    fn ranges(draft: &Draft) -> Vec<(u32, u32, u64, u64)> {
        draft.reads.iter().map(|read| (read.layer, read.entry, read.range.start, read.range.end)).collect()
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
        assert_eq!(draft.reads.len(), MAX_READS);
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
}
