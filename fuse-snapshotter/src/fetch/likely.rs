//! What is likely to be read once a part of a file was: the rest of it.
//!
//! Libraries, archives and images of classes are read in many places, and each place that a reader has to wait for costs a round
//! trip in which the link idles. Of a file of some megabytes most spans are wanted in the end once one is; of a larger one
//! those are that lie around what is read, and the more of them the more often readers have had to wait there. They are fetched in
//! the moments in which no reader waits.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::flight::Duty;
use super::layer::LazyLayer;
use super::run::Run;
use crate::cache::lock;

/// A file in so many spans is likely to be wanted as a whole.
const WHOLE: usize = 5;

/// Most spans in front of and behind the last one wanted that are likely to be wanted.
const MAX_REACH: usize = 32;

/// Files of a layer of which more is being fetched at a time.
const BUSY: usize = 64;

/// Files of a layer that are remembered.
const REMEMBERED: usize = 4096;

/// Where readers have had to wait in a file.
#[derive(Debug, Clone)]
struct Waits {
    spans: RangeInclusive<usize>,
    last: usize,
    count: usize,
}

impl Waits {
    /// The spans that are likely to be wanted, the likeliest first.
    fn likely(&self) -> impl Iterator<Item = usize> + use<> {
        let (spans, last) = (self.spans.clone(), self.last);
        let length = spans.end() - spans.start() + 1;
        let reach = if length <= WHOLE { length } else { self.count.saturating_sub(1).min(MAX_REACH) };
        let around = (1..=reach).flat_map(move |at| [Some(last + at), last.checked_sub(at)]).flatten();
        around.filter(move |span| spans.contains(span))
    }
}

/// The files of a layer in which readers have had to wait, by their entries.
#[derive(Debug, Default)]
pub(super) struct Likely {
    files: HashMap<usize, Waits>,
    /// Those of which more is being fetched.
    busy: Vec<usize>,
}

impl Likely {
    /// Notes that a reader waits for a span of a file. Whether somebody has to begin to fetch more of it.
    fn note(&mut self, entry: usize, span: usize, spans: RangeInclusive<usize>) -> bool {
        if self.files.len() >= REMEMBERED && !self.files.contains_key(&entry) {
            self.files.clear();
        }
        let waits = self.files.entry(entry).or_insert(Waits { spans, last: span, count: 0 });
        (waits.last, waits.count) = (span, waits.count + 1);
        let begins = self.busy.len() < BUSY && !self.busy.contains(&entry) && waits.likely().next().is_some();
        if begins {
            self.busy.push(entry);
        }
        begins
    }
}

impl LazyLayer {
    /// A reader waits for a span of an entry, which reaches over `spans`: fetches what is likely to be wanted next.
    pub(super) fn wants(self: &Arc<Self>, entry: usize, span: usize, spans: RangeInclusive<usize>) {
        if lock(self.likely()).note(entry, span, spans) {
            // It ends with the layer, whose users do not wait for it.
            let layer = Arc::downgrade(self);
            tokio::spawn(async move {
                while let Some(layer) = layer.upgrade()
                    && layer.fetch_likely(entry).await
                {}
            });
        }
    }

    /// Fetches one more span of an entry, as soon as no reader waits; `false` when there is none, or it cannot be had.
    async fn fetch_likely(&self, entry: usize) -> bool {
        let turn = self.schedule().likely().await;
        let goes_on = match self.next_likely(entry) {
            Some(duty) => self.try_span(duty).await,
            None => false,
        };
        drop(turn);
        if !goes_on {
            lock(self.likely()).busy.retain(|busy| *busy != entry);
        }
        goes_on
    }

    fn next_likely(&self, entry: usize) -> Option<Duty> {
        let likely = lock(self.likely()).files.get(&entry).map(Waits::likely);
        let mut likely = likely.into_iter().flatten().filter(|span| !self.has_span(*span));
        if self.cache_is_full() { None } else { likely.find_map(|span| self.claim_one(span)) }
    }

    /// Fetches a span that is likely to be read. Whether it came: if not, it is left to the reader to insist on it.
    pub(super) async fn try_span(&self, duty: Duty) -> bool {
        let span = duty.span;
        tracing::debug!(layer = %self.digest(), span, "reading on");
        self.fly(Run::new(vec![duty], u64::MAX)).await;
        self.has_span(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_small_files_all_is_likely_and_of_large_ones_what_lies_around() {
        let likely = |spans, last, count| Waits { spans, last, count }.likely().collect::<Vec<_>>();
        assert_eq!(likely(7..=9, 7, 1), [8, 9]);
        assert_eq!(likely(0..=4, 3, 1), [4, 2, 1, 0]);
        assert!(likely(5..=5, 5, 3).is_empty());
        assert!(likely(10..=30, 20, 1).is_empty());
        assert_eq!(likely(10..=30, 20, 3), [21, 19, 22, 18]);
        assert_eq!(likely(10..=30, 30, 4), [29, 28, 27]);
        assert_eq!(likely(0..=1000, 500, 900).len(), 2 * MAX_REACH);
        let mut likely = Likely::default();
        // The first time in a large file; the second; somebody is at it.
        assert_eq!([5, 6, 7].map(|span| likely.note(1, span, 0..=20)), [false, true, false]);
        assert!(likely.note(2, 0, 0..=1) && !likely.note(3, 0, 0..=0));
        for entry in 10..10 + 2 * REMEMBERED {
            likely.note(entry, 0, 0..=0);
        }
        assert!(likely.files.len() <= REMEMBERED);
    }
}
