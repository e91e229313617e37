//! In which order what is expected is fetched.
//!
//! What is executed, and what that reads by itself, comes first. Archives of an application are opened by the machine
//! that runs it, which has to be there before.

use std::collections::VecDeque;
use std::ops::Range;

/// Pieces that are fetched at a time.
const FETCHES: usize = 4;

/// Bytes in a piece: a span, mostly.
const PIECE: u64 = 4 << 20;

/// Ranges of files that are still to be fetched.
#[derive(Debug)]
pub(super) struct Queue<F> {
    first: VecDeque<(F, Range<u64>)>,
    /// Of archives.
    last: VecDeque<(F, Range<u64>)>,
}

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self { first: VecDeque::new(), last: VecDeque::new() }
    }
}

impl<F: Clone> Queue<F> {
    /// Adds a range of a file.
    pub(super) fn add(&mut self, file: &F, range: Range<u64>, is_archive: bool) {
        let ranges = if is_archive { &mut self.last } else { &mut self.first };
        if !range.is_empty() {
            ranges.push_back((file.clone(), range));
        }
    }

    /// The next piece, if its turn has come beside those that are `under_way`. As long as `more` may come, archives go
    /// a piece at a time, when there is nothing else to do.
    pub(super) fn next(&mut self, under_way: usize, more: bool) -> Option<(F, Range<u64>)> {
        let ranges = match (self.first.is_empty(), more && under_way > 0) {
            _ if under_way >= FETCHES => return None,
            (false, _) => &mut self.first,
            (true, false) => &mut self.last,
            (true, true) => return None,
        };
        let (file, range) = ranges.front_mut()?;
        let piece = (file.clone(), range.start..range.end.min(range.start.saturating_add(PIECE)));
        range.start = piece.1.end;
        if range.is_empty() {
            ranges.pop_front();
        }
        Some(piece)
    }

    /// Nothing more is fetched of what was added so far.
    pub(super) fn clear(&mut self) {
        self.first.clear();
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_come_last() {
        let mut queue = Queue::default();
        queue.add(&"archive", 0..PIECE + 1, true);
        queue.add(&"library", 5..7, false);
        queue.add(&"library", 9..9, false);
        assert_eq!(queue.next(FETCHES, false), None);
        assert_eq!(queue.next(1, true), Some(("library", 5..7)));
        // Something that leads on to more may still come.
        assert_eq!(queue.next(1, true), None);
        assert_eq!(queue.next(0, true), Some(("archive", 0..PIECE)));
        assert_eq!(queue.next(1, false), Some(("archive", PIECE..PIECE + 1)));
        assert_eq!(queue.next(0, false), None);
        queue.add(&"library", 0..u64::MAX, false);
        queue.add(&"archive", 0..1, true);
        queue.clear();
        assert_eq!(queue.next(0, false), None);
    }
}
