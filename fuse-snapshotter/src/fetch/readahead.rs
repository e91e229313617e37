//! How far to read on in a file that is being read.
//!
//! Cold time is the number of spans touched times the latency of one, so a file that is read from front to back
//! should not wait for each span. The window doubles with every span that sequential reading reaches and is never
//! extended beyond the file: jumping about in a large library asks for nothing more.

/// Most spans that are fetched ahead.
const MAX_WINDOW: usize = 8;

/// What was read last in a layer.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    entry: usize,
    /// The span behind those that were asked for last.
    next: usize,
    window: usize,
}

impl ReadAhead {
    /// A reader waits for spans up to `end` of an entry, of which `last` is the last one. Returns the end of
    /// what to fetch.
    pub(super) fn extend(
        &mut self,
        entry: usize,
        start: usize,
        end: usize,
        last: usize,
        at_start: bool,
    ) -> usize {
        let sequential = self.entry == entry && (start..=end).contains(&self.next);
        self.window = match (sequential, at_start) {
            (true, _) => (self.window * 2).clamp(1, MAX_WINDOW),
            // Whoever begins at the start of a file may well read it all.
            (false, true) => 1,
            (false, false) => 0,
        };
        let extended = (end + self.window).min(last + 1).max(end);
        (self.entry, self.next) = (entry, extended);
        extended
    }
}
