//! Spans of which a part has arrived when their fetch had to give way to a reader.
//!
//! What was inflated of them waits, invisible, for the rest; the next fetch of the span asks for the rest only.

use std::sync::Mutex;

use tokio::sync::OwnedSemaphorePermit;

use crate::base::lock::lock;
use crate::content::spans::sink::SpanSink;

/// An unfinished span.
struct Unfinished {
    sink: SpanSink,
    /// Where in the layer the bytes that it lacks begin.
    position: u64,
    _room: OwnedSemaphorePermit,
}

/// The unfinished spans of a layer.
#[derive(Default)]
pub(super) struct PartialSpans(Mutex<Vec<Unfinished>>);

impl std::fmt::Debug for PartialSpans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PartialSpans").field(&lock(&self.0).len()).finish()
    }
}

impl PartialSpans {
    /// Keeps a span that has arrived up to `position`.
    pub(super) fn put(&self, sink: SpanSink, position: u64, room: OwnedSemaphorePermit) {
        let mut partial = lock(&self.0);
        partial.retain(|other| other.sink.span() != sink.span());
        partial.push(Unfinished { sink, position, _room: room });
    }

    /// Takes what there is of a span.
    pub(super) fn take(&self, span: usize) -> Option<(SpanSink, u64)> {
        let mut partial = lock(&self.0);
        let place = partial.iter().position(|unfinished| unfinished.sink.span() == span)?;
        let Unfinished { sink, position, .. } = partial.swap_remove(place);
        Some((sink, position))
    }

    /// Gives up what there is of a span: it has come another way.
    pub(super) fn forget(&self, span: usize) {
        drop(self.take(span));
    }
}
