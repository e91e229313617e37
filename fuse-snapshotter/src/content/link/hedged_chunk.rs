//! One chunk of a range, asked for twice if a reader waits for it, or will soon, and its connection is slow.
//!
//! Of several connections over a long link some stay slow for seconds: those that began while others filled it. A span
//! is complete when the last of its chunks is, and that is the one which got the slowest connection. A chunk is hedged
//! when all of this holds: a reader waits or is expected, three round trips have passed, and the rest would end two
//! round trips later than its fair share of the link. What is left is then asked for once more; the quicker answer
//! counts.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use registry::Result;
use tokio::sync::mpsc;

use super::ask::Patience;
use super::links::Link;
use super::priority::Priority;
use super::request_slots::Slot;
use super::sources::{Received, Source, Verdict};

/// Round trips after which a chunk is looked at for the first time: one for the request, and two for a connection that
/// can send half of it at a time.
const PATIENCE: u32 = 3;

/// A chunk of which the rest would take so many round trips longer than its share of the link allows is worth another
/// request.
const WORTH: u32 = 2;

/// Round trips in which the slower answer may still end, so that its connection can be used again.
const DRAIN: u32 = 2;

/// Where chunks come from.
#[derive(Clone)]
pub(super) struct Origin {
    link: Arc<Link>,
    sources: Arc<[Arc<Source>]>,
}

/// Where in the blob these bytes begin.
type Placed = (u64, Received);

/// A chunk on its way.
struct Transfer {
    chunk: Range<u64>,
    began: Instant,
    /// Where in the blob the bytes that have not come begin.
    position: Arc<AtomicU64>,
}

/// Fetches a chunk once there is a slot for it. `priority` is how urgent it is by now.
pub(super) async fn fetch(
    origin: Origin,
    chunk: Range<u64>,
    slot: impl Future<Output = Option<Slot>> + Send + 'static,
    priority: impl Fn() -> Priority + Clone + Send + 'static,
    sender: mpsc::UnboundedSender<Result<Received>>,
) {
    let slot = slot.await;
    let link = Arc::clone(&origin.link);
    let position = Arc::new(AtomicU64::new(chunk.start));
    let transfer = Transfer { chunk, began: Instant::now(), position };
    let mut answers = SelectAll::new();
    answers.push(origin.request(&transfer, std::future::ready(slot)));
    let mut look = transfer.began + link.estimate.round_trip() * PATIENCE;
    let (mut hedged, mut failed) = (false, None);
    let mut from = None;
    loop {
        let answer = tokio::select! {
            biased;
            answer = answers.next() => answer,
            () = tokio::time::sleep_until(look.into()), if !hedged => {
                look += link.estimate.round_trip();
                if priority().is_urgent() && transfer.is_late(&link) {
                    hedged = true;
                    let (start, position) = (transfer.chunk.start, transfer.position());
                    tracing::debug!(start, position, "asking again for what is left of a piece");
                    from.as_ref().inspect(|source: &&Arc<Source>| source.report(Verdict::Slow));
                    answers.push(origin.request(&transfer, origin.slot(priority.clone())));
                }
                continue;
            }
        };
        match answer {
            Some(Ok((at, received))) => {
                from = Some(Arc::clone(&received.from));
                if let Some(new) = transfer.advance(at, received)
                    && sender.send(Ok(new)).is_err()
                {
                    return;
                }
            }
            // The other one may do better.
            Some(Err(error)) => failed = Some(error),
            None => break,
        }
        if transfer.position() >= transfer.chunk.end {
            failed = None;
            break;
        }
    }
    if let Some(error) = failed {
        let _ = sender.send(Err(error));
    }
    let limit = link.estimate.round_trip() * DRAIN;
    tokio::spawn(tokio::time::timeout(limit, async move { while answers.next().await.is_some() {} }));
}

impl Transfer {
    fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Takes bytes that begin at `at`, and returns those of them that had not come yet.
    fn advance(&self, at: u64, received: Received) -> Option<Received> {
        let known = usize::try_from(self.position().saturating_sub(at)).unwrap_or(usize::MAX);
        if known >= received.bytes.len() {
            return None;
        }
        self.position.store(at + received.bytes.len() as u64, Ordering::Relaxed);
        Some(Received { bytes: received.bytes.slice(known..), from: received.from })
    }

    /// Whether the rest would take much longer than its share of the link allows. A link that is full is no reason to
    /// ask again: another request would only make it fuller.
    fn is_late(&self, link: &Link) -> bool {
        let (position, left) = (self.position(), self.chunk.end - self.position());
        let share = link.estimate.transfer(left) * (link.slots.busy() as u32 + 1);
        let came = ((position - self.chunk.start) as f64).max(1.0);
        let rest = self.began.elapsed().as_secs_f64() * left as f64 / came;
        let allowed: Duration = link.estimate.round_trip() * WORTH + share;
        rest > allowed.as_secs_f64()
    }
}

impl Origin {
    pub(super) fn new(link: &Arc<Link>, sources: Vec<Arc<Source>>) -> Self {
        Self { link: Arc::clone(link), sources: sources.into() }
    }

    /// A slot for a request.
    pub(super) fn slot<P: Fn() -> Priority + Send + 'static>(
        &self,
        priority: P,
    ) -> impl Future<Output = Option<Slot>> + Send + 'static + use<P> {
        self.link.slot(priority)
    }

    /// Asks for what is missing of a chunk when there is a slot, which is free again when the answer has ended.
    fn request(
        &self,
        transfer: &Transfer,
        slot: impl Future<Output = Option<Slot>> + Send + 'static,
    ) -> BoxStream<'static, Result<Placed>> {
        let (origin, position, end) = (self.clone(), Arc::clone(&transfer.position), transfer.chunk.end);
        let body = async move {
            let slot = slot.await;
            let start = position.load(Ordering::Relaxed);
            if start >= end {
                return futures::stream::empty().boxed();
            }
            let (body, from) = match origin.link.ask(start..end, &origin.sources, Patience::Wait).await {
                Ok(answer) => answer,
                Err(error) => return futures::stream::once(std::future::ready(Err(error))).boxed(),
            };
            let chunks = futures::stream::unfold((body, start, slot), move |(mut body, at, slot)| {
                let (link, from) = (Arc::clone(&origin.link), Arc::clone(&from));
                async move {
                    let bytes = body.next().await?;
                    let length = bytes.as_ref().map_or(0, Bytes::len);
                    link.note_bytes(length, &from);
                    let placed = bytes.map(|bytes| (at, Received { bytes, from }));
                    Some((placed, (body, at + length as u64, slot)))
                }
            });
            chunks.boxed()
        };
        body.flatten_stream().boxed()
    }
}
