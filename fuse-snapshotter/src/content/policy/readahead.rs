//! How far to read on behind what a reader waits for.
//!
//! Cold time is the number of spans touched times the latency of one, so a file that is read from front to back should
//! not wait for each span: the window doubles with every span that sequential reading reaches, up to the end of the
//! file. All other reads have a window of one span, which comes in the same request: what a program reads next lies in
//! the span behind in nearly half of all cases, since files that belong together were packed together, and its bytes
//! arrive while the reader works. On a long link bytes that nobody wants cost more than a round trip, so a read in the
//! middle of a long file has no window there; such files are left to [`speculative`](super::speculative).

use std::ops::RangeInclusive;

use super::WHOLE;

/// Most spans that are fetched ahead.
const MAX_WINDOW: usize = 8;

/// What was read last in a layer.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    entry: usize,
    /// The span behind those that were asked for last.
    next: usize,
    window: usize,
}

impl ReadAhead {
    /// A reader waits for spans `first..end` of an entry, which is in the spans `all`, in a layer of `spans` spans.
    /// Returns the end of what to fetch. `sparing`: bytes that nobody wants are dear.
    pub(crate) fn extend(
        &mut self,
        entry: usize,
        first: usize,
        end: usize,
        all: &RangeInclusive<usize>,
        spans: usize,
        sparing: bool,
    ) -> usize {
        let sequential = self.entry == entry && (first..=end).contains(&self.next);
        self.window = if sequential { (self.window * 2).clamp(1, MAX_WINDOW) } else { 1 };
        let within = first > *all.start() && end <= *all.end() && all.end() - all.start() >= WHOLE;
        let extended = if sparing && within && !sequential {
            end
        } else {
            (end + self.window).min(all.end() + 1).max(end + 1).min(spans)
        };
        (self.entry, self.next) = (entry, extended);
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_read_on_and_what_does_not_where_it_costs_little() {
        let mut reads = ReadAhead::default();
        let mut end =
            |first: usize, sparing: bool| reads.extend(1, first, first + 1, &(10..=30), 40, sparing);
        // Its start; somewhere; behind that.
        assert_eq!([end(10, true), end(20, true), end(21, true), end(24, true)], [12, 21, 24, 29]);
        assert_eq!([end(15, false), end(15, true), end(30, true), end(5, true)], [17, 16, 32, 7]);
    }
}
