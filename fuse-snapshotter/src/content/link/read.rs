//! Reading a range over a link, long or short.
//!
//! On a short link a range is one request. Unless a reader waits for it, it gives way to a reader that comes: the
//! request is dropped. On a long link a range comes in chunks ([`chunked_range`]), between which readers overtake.
//! Callers do not see which it is.

use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use registry::Result;

use super::ask::Patience;
use super::chunked_range;
use super::links::Link;
use super::priority::RangePriorities;
use super::sources::{Received, Source};

/// Bytes of a range that are on their way.
pub(crate) struct Body {
    stream: BoxStream<'static, Result<Received>>,
    link: Arc<Link>,
    /// Readers overtake it, so that it never gives way.
    is_overtaken: bool,
}

/// What there is to do next about a range.
pub(crate) enum Next {
    /// To take these bytes.
    Chunk(Result<Received>),
    /// Nothing: all have come.
    End,
    /// To leave the link to a reader.
    GiveWay,
}

impl From<Option<Result<Received>>> for Next {
    fn from(chunk: Option<Result<Received>>) -> Self {
        chunk.map_or(Self::End, Self::Chunk)
    }
}

impl Link {
    /// Begins to read a range from the first of `sources` that answers. Its requests have their places in the queue
    /// when the result is there.
    pub(crate) async fn read(
        self: &Arc<Self>,
        range: Range<u64>,
        priorities: RangePriorities,
        sources: Vec<Arc<Source>>,
        patience: Patience,
    ) -> Result<Body> {
        let link = Arc::clone(self);
        if let Some(size) = self.estimate.chunk_size().filter(|_| patience == Patience::Wait) {
            let stream = chunked_range::read(self, range, priorities, sources, size);
            return Ok(Body { stream, link, is_overtaken: true });
        }
        let (body, from) = self.ask(range, &sources, patience).await?;
        let stream = {
            let link = Arc::clone(&link);
            body.map(move |chunk| {
                let bytes = chunk?;
                link.note_bytes(bytes.len(), &from);
                Ok(Received { bytes, from: Arc::clone(&from) })
            })
        };
        Ok(Body { stream: stream.boxed(), link, is_overtaken: false })
    }
}

impl Body {
    /// Waits for the next bytes.
    pub(crate) async fn next(&mut self) -> Option<Result<Received>> {
        self.stream.next().await
    }

    /// Waits for the next bytes, of which nobody needs more than `left`, or for a reader to give way to: one that came
    /// after the `arrival`-th, if there is none that waits for these bytes.
    pub(crate) async fn next_unless_disturbed(
        &mut self,
        arrival: u64,
        left: u64,
        is_demanded: impl Fn() -> bool,
    ) -> Next {
        if self.is_overtaken || is_demanded() {
            return self.next().await.into();
        }
        let link = Arc::clone(&self.link);
        tokio::select! {
            biased;
            () = link.schedule.disturbed(arrival) => {
                if is_demanded() {
                    return self.next().await.into();
                }
                // The reader's own first byte is a round trip away: until then the link has nothing else to do.
                let round_trip = link.estimate.round_trip();
                if link.estimate.transfer(left) > round_trip {
                    return Next::GiveWay;
                }
                let rest = tokio::time::timeout(round_trip * 2, self.next()).await;
                rest.map_or(Next::GiveWay, Next::from)
            }
            chunk = self.stream.next() => chunk.into(),
        }
    }
}
