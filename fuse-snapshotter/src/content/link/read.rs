//! Reading a range over a link, long or short.
//!
//! On a short link a range is one request. Unless a reader waits for it, it gives way to a reader that comes: the
//! request is dropped. On a long link a range comes in chunks ([`chunked_range`]), between which readers overtake.
//! Callers do not see which it is.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::BoxStream;
use registry::{ByteStream, Result};

use super::chunked_range;
use super::links::Link;
use super::priority::RangePriorities;
use super::sources::{Received, Source};

/// How the last of the sources is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// What it refuses is waited for.
    Wait,
    /// Once: there is another way to the same content.
    Once,
}

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
    /// Begins to read a range from the first of `sources` that answers. Its requests have their places in the queue when
    /// the result is there.
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

    /// Notes bytes that a source has sent.
    pub(super) fn note_bytes(&self, bytes: usize, from: &Source) {
        if !from.is_local {
            self.estimate.note_bytes(bytes);
        }
    }

    /// Asks one source after the other for a range, in one request. The error is the last one's.
    pub(crate) async fn ask(
        &self,
        range: Range<u64>,
        sources: &[Arc<Source>],
        patience: Patience,
    ) -> Result<(ByteStream, Arc<Source>)> {
        let mut rest = sources.iter();
        loop {
            let Some(source) = rest.next() else { return Err(no_source()) };
            let asked = Instant::now();
            source.note_request();
            let is_last = rest.len() == 0;
            let answer = if is_last && patience == Patience::Wait {
                source.reader.read_range(range.clone()).await
            } else {
                source.reader.attempt(range.clone(), 0).await
            };
            match answer {
                Ok(body) => {
                    if !source.is_local {
                        self.estimate.note_answer(asked.elapsed());
                    }
                    return Ok((body, Arc::clone(source)));
                }
                Err(error) if is_last => return Err(error),
                Err(error) => tracing::debug!(%error, "a source does not answer; asking the next one"),
            }
        }
    }
}

fn no_source() -> registry::Error {
    let context =
        registry::Context { operation: "read".into(), host: String::new(), repository: String::new() };
    registry::Error::Protocol { context, reason: "there is no source to ask".to_owned() }
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
