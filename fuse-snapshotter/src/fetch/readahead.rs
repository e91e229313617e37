//! How far to read on behind what a reader waits for.
//!
//! Cold time is the number of spans touched times the latency of one, so a file that is read from front to back should not
//! wait for each span: the window doubles with every span that sequential reading reaches, up to the end of the file. For all
//! others it is one span, which comes in the same request: what a program reads next lies in the span behind in nearly half of
//! all cases, since files that belong together were packed together, and its bytes arrive while the reader works.

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
    /// A reader waits for spans `first..end` of an entry, of which `last` is the last one, in a layer of `spans` spans. Returns
    /// the end of what to fetch.
    pub(super) fn extend(
        &mut self,
        entry: usize,
        first: usize,
        end: usize,
        last: usize,
        spans: usize,
    ) -> usize {
        let sequential = self.entry == entry && (first..=end).contains(&self.next);
        self.window = if sequential { (self.window * 2).clamp(1, MAX_WINDOW) } else { 1 };
        let extended = (end + self.window).min(last + 1).max(end + 1).min(spans);
        (self.entry, self.next) = (entry, extended);
        extended
    }
}
