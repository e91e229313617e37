//! What may be read once a part of a file was: the rest of it.
//!
//! Libraries, archives and images of classes are read in many places, and each place that a reader has to wait for
//! costs a round trip in which the link idles. Files of up to five spans are fetched whole. In larger files the window
//! reaches around the places where readers have waited, and grows by one span on each side with every further wait;
//! spans close to several such places come first. All this is fetched while no reader waits.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use super::WHOLE;
use crate::base::lock::lock;
use crate::content::spans::fetcher::SpanFetcher;

/// Most spans in front of and behind one wanted that are likely to be wanted.
const MAX_REACH: usize = 32;

/// Places that are remembered of a file, at most.
const PLACES: usize = 8;

/// How near a span is to the one beside it. A sum of such numbers is compared.
const BESIDE: usize = 1 << 10;

/// Files of a layer of which more is being fetched at a time.
const BUSY: usize = 64;

/// Files of a layer that are remembered.
const REMEMBERED: usize = 4096;

/// Where readers have had to wait in a file.
#[derive(Debug, Clone)]
struct Waits {
    spans: RangeInclusive<usize>,
    /// The last places, the latest first.
    places: VecDeque<usize>,
    count: usize,
    /// What was fetched speculatively. Once: if it was evicted since, nobody wanted it.
    fetched: BTreeSet<usize>,
}

impl Waits {
    fn new(spans: RangeInclusive<usize>) -> Self {
        Self { spans, places: VecDeque::new(), count: 0, fetched: BTreeSet::new() }
    }

    fn note(&mut self, span: usize) {
        self.places.retain(|place| *place != span);
        self.places.push_front(span);
        self.places.truncate(PLACES);
        self.count += 1;
    }

    /// The spans that are likely to be wanted, the likeliest first: those that lie near most places, and of them those
    /// that are near the last one. What is behind that comes next most often, whatever is known.
    fn candidates(&self) -> Vec<usize> {
        let Some(last) = self.places.front().copied() else { return Vec::new() };
        let length = self.spans.end() - self.spans.start() + 1;
        let reach = if length <= WHOLE { length } else { self.count.saturating_sub(1).min(MAX_REACH) };
        let around = self.places.iter().flat_map(|place| place.saturating_sub(reach)..=place + reach);
        let is_new = |span: &usize| {
            self.spans.contains(span) && !self.fetched.contains(span) && !self.places.contains(span)
        };
        let spans: BTreeSet<_> = around.chain([last + 1]).filter(is_new).collect();
        let nearness =
            |span: usize| self.places.iter().map(|place| BESIDE / place.abs_diff(span).max(1)).sum::<usize>();
        let mut spans: Vec<_> = spans.into_iter().collect();
        spans.sort_by_key(|span| (Reverse(nearness(*span)), last.abs_diff(*span), *span < last));
        spans
    }
}

/// The files of a layer in which readers have had to wait, by their entries.
#[derive(Debug, Default)]
struct Files {
    files: HashMap<usize, Waits>,
    /// Those of which more is being fetched.
    busy: Vec<usize>,
}

impl Files {
    /// Notes that a reader has waited for a span of a file. Whether somebody has to begin to fetch more of it.
    fn note(&mut self, entry: usize, span: usize, spans: RangeInclusive<usize>) -> bool {
        if self.files.len() >= REMEMBERED && !self.files.contains_key(&entry) {
            self.files.clear();
        }
        let waits = self.files.entry(entry).or_insert_with(|| Waits::new(spans));
        waits.note(span);
        let begins = self.busy.len() < BUSY && !self.busy.contains(&entry) && !waits.candidates().is_empty();
        if begins {
            self.busy.push(entry);
        }
        begins
    }

    /// The likeliest span of a file that is wanted, of those that were not fetched yet.
    fn next(&mut self, entry: usize, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let waits = self.files.get_mut(&entry)?;
        let next = waits.candidates().into_iter().find(|span| wanted(*span))?;
        waits.fetched.insert(next);
        Some(next)
    }
}

/// The speculation on what a layer's readers will ask for.
pub(crate) struct Speculation {
    fetcher: Arc<SpanFetcher>,
    files: Mutex<Files>,
}

impl Speculation {
    pub(crate) fn new(fetcher: &Arc<SpanFetcher>) -> Self {
        Self { fetcher: Arc::clone(fetcher), files: Mutex::default() }
    }

    /// A reader has waited for a span of an entry, which reaches over `spans`, and got it: fetches what is likely to be
    /// wanted next.
    pub(crate) fn note_wait(self: &Arc<Self>, entry: usize, span: usize, spans: RangeInclusive<usize>) {
        if lock(&self.files).note(entry, span, spans) {
            let (link, speculation) = (Arc::clone(self.fetcher.link()), Arc::downgrade(self));
            tokio::spawn(async move {
                loop {
                    let _turn = link.speculative_turn().await;
                    // It does not keep the layer while it waits: its users may be gone when the turn comes.
                    let Some(speculation) = speculation.upgrade() else { return };
                    if !speculation.fetch_next(entry).await {
                        return;
                    }
                }
            });
        }
    }

    /// Fetches one more span of an entry; `false` when there is none, or it cannot be had.
    async fn fetch_next(&self, entry: usize) -> bool {
        let fetcher = &self.fetcher;
        let next = lock(&self.files).next(entry, |span| !fetcher.has_span(span));
        let goes_on = match next {
            Some(span) if !fetcher.contents().is_full() => fetcher.try_span(span).await,
            _ => false,
        };
        if !goes_on {
            lock(&self.files).busy.retain(|busy| *busy != entry);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_small_files_all_is_likely_and_of_large_ones_what_lies_around() {
        let likely = |spans, places: &[usize], count| {
            Waits { places: places.iter().copied().collect(), count, ..Waits::new(spans) }.candidates()
        };
        assert_eq!(likely(7..=9, &[7], 1), [8, 9]);
        assert_eq!(likely(0..=4, &[3], 1), [4, 2, 1, 0]);
        assert!(likely(5..=5, &[5], 3).is_empty());
        assert_eq!(likely(10..=30, &[20], 1), [21]);
        assert!(likely(10..=30, &[30], 1).is_empty());
        assert_eq!(likely(10..=30, &[20], 3), [21, 19, 22, 18]);
        assert_eq!(likely(10..=30, &[30], 4), [29, 28, 27]);
        // Between two places before what is beyond them.
        assert_eq!(likely(0..=30, &[26, 21], 2), [25, 22, 27, 20]);
        assert_eq!(likely(0..=30, &[22, 26, 21], 4)[..5], [23, 20, 25, 27, 24]);
        assert_eq!(likely(0..=1000, &[500], 900).len(), 2 * MAX_REACH);
        let mut likely = Files::default();
        // The first time in a large file; somebody is at it.
        assert_eq!([5, 6, 7].map(|span| likely.note(1, span, 0..=20)), [true, false, false]);
        assert!(likely.note(2, 0, 0..=1) && !likely.note(3, 0, 0..=0));
        for entry in 10..10 + 2 * REMEMBERED {
            likely.note(entry, 0, 0..=0);
        }
        assert!(likely.files.len() <= REMEMBERED);
        // Each once, and the likeliest that is wanted.
        likely.note(1, 2, 0..=4);
        assert_eq!([(); 4].map(|()| likely.next(1, |span| span != 3)), [Some(1), Some(4), Some(0), None]);
        assert_eq!(likely.next(2_000_000, |_| true), None);
    }
}
