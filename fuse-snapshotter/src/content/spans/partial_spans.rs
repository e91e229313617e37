//! Spans of which a part has arrived when their fetch had to give way to a reader.
//!
//! What was inflated of them waits, invisible, for the rest; the next fetch of the span asks for the rest only.

use std::sync::Mutex;

use crate::base::lock::lock;
use crate::content::link::schedule::Counted;
use crate::content::spans::sink::SpanSink;

/// An unfinished span.
struct Unfinished {
    sink: SpanSink,
    /// Where in the layer the bytes that it lacks begin.
    position: u64,
    _room: Counted,
}

/// The unfinished spans of a layer.
#[derive(Default)]
pub(crate) struct Parked(Mutex<Vec<Unfinished>>);

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parked").field(&lock(&self.0).len()).finish()
    }
}

impl Parked {
    /// Keeps a span that has arrived up to `position`.
    pub(crate) fn put(&self, sink: SpanSink, position: u64, room: Counted) {
        let mut parked = lock(&self.0);
        parked.retain(|other| other.sink.span() != sink.span());
        parked.push(Unfinished { sink, position, _room: room });
    }

    /// Takes what there is of a span.
    pub(crate) fn take(&self, span: usize) -> Option<(SpanSink, u64)> {
        let mut parked = lock(&self.0);
        let place = parked.iter().position(|unfinished| unfinished.sink.span() == span)?;
        let Unfinished { sink, position, .. } = parked.swap_remove(place);
        Some((sink, position))
    }

    /// Gives up what there is of a span: it has come another way.
    pub(crate) fn forget(&self, span: usize) {
        drop(self.take(span));
    }
}
