//! One piece of a range, asked for twice if a reader waits for it, or will soon, and its connection is slow.
//!
//! Of several connections over a long link some stay slow for seconds: those that began while others filled it. A span is there
//! when the last of its pieces is, and that is the one which got the slowest connection. What is left of it is asked for once
//! more, over a lane that is free by then, and whichever answer is quicker counts.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use registry::{BlobReader, Result};
use tokio::sync::mpsc;

use crate::content::link::request_slots::{Lane, Urgency};
use crate::content::link::schedule::Schedule;

/// Round trips after which a piece is looked at for the first time: one for the request, and two for a connection that can send
/// half of it at a time.
const PATIENCE: u32 = 3;

/// A piece of which the rest would take so many round trips longer than its share of the link allows is worth another request.
const WORTH: u32 = 2;

/// Round trips in which the slower answer may still end, so that its connection can be used again.
const DRAIN: u32 = 2;

/// Where a piece comes from and what it costs.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) reader: Arc<dyn BlobReader>,
    pub(crate) schedule: Arc<Schedule>,
    /// Requests that were begun.
    pub(crate) requests: Arc<AtomicU64>,
}

/// Bytes, and where in the blob they begin.
type Chunk = (u64, Bytes);

/// Fetches a piece once there is a lane for it. `urgency` is how urgent it is by now.
pub(crate) async fn fetch(
    source: Source,
    piece: Range<u64>,
    lane: impl Future<Output = Option<Lane>> + Send + 'static,
    urgency: impl Fn() -> Urgency + Clone + Send + 'static,
    sender: mpsc::UnboundedSender<Result<Bytes>>,
) {
    let lane = lane.await;
    let schedule = Arc::clone(&source.schedule);
    let began = Instant::now();
    let came = Arc::new(AtomicU64::new(piece.start));
    let mut answers = SelectAll::new();
    answers.push(source.ask(piece.end, &came, std::future::ready(lane)));
    let mut look = began + schedule.pace.round_trip() * PATIENCE;
    let mut asked_again = false;
    let mut failed = None;
    loop {
        let position = came.load(Ordering::Relaxed);
        let chunk = tokio::select! {
            biased;
            chunk = answers.next() => chunk,
            () = tokio::time::sleep_until(look.into()), if !asked_again => {
                let round_trip = schedule.pace.round_trip();
                look += round_trip;
                // A link that is full is no reason, and another request would only make it fuller.
                let share = schedule.pace.transfer(piece.end - position) * (schedule.busy_lanes() as u32 + 1);
                let rest = began.elapsed().as_secs_f64() * (piece.end - position) as f64
                    / ((position - piece.start) as f64).max(1.0);
                if urgency().is_urgent() && rest > (round_trip * WORTH + share).as_secs_f64() {
                    asked_again = true;
                    tracing::debug!(start = piece.start, position, "asking again for what is left of a piece");
                    answers.push(source.ask(piece.end, &came, schedule.lane(urgency.clone())));
                }
                continue;
            }
        };
        match chunk {
            Some(Ok((at, bytes))) => {
                let known = usize::try_from(position.saturating_sub(at)).unwrap_or(usize::MAX);
                if known < bytes.len() {
                    came.store(at + bytes.len() as u64, Ordering::Relaxed);
                    if sender.send(Ok(bytes.slice(known..))).is_err() {
                        return;
                    }
                }
            }
            // The other one may do better.
            Some(Err(error)) => failed = Some(error),
            None => break,
        }
        if came.load(Ordering::Relaxed) >= piece.end {
            failed = None;
            break;
        }
    }
    if let Some(error) = failed {
        let _ = sender.send(Err(error));
    }
    let limit = schedule.pace.round_trip() * DRAIN;
    tokio::spawn(tokio::time::timeout(limit, async move { while answers.next().await.is_some() {} }));
}

impl Source {
    /// Asks for what is missing of a piece up to its end when there is a lane, which is free again when the answer has ended.
    fn ask(
        &self,
        end: u64,
        came: &Arc<AtomicU64>,
        lane: impl Future<Output = Option<Lane>> + Send + 'static,
    ) -> BoxStream<'static, Result<Chunk>> {
        let (source, came) = (self.clone(), Arc::clone(came));
        let body = async move {
            let lane = lane.await;
            let start = came.load(Ordering::Relaxed);
            if start >= end {
                return futures::stream::empty().boxed();
            }
            source.requests.fetch_add(1, Ordering::Relaxed);
            let asked = Instant::now();
            let body = match source.reader.read_range(start..end).await {
                Ok(body) => body,
                Err(error) => return futures::stream::once(std::future::ready(Err(error))).boxed(),
            };
            source.schedule.pace.note_answer(asked.elapsed());
            let chunks = futures::stream::unfold((body, start, lane), move |(mut body, at, lane)| {
                let source = source.clone();
                async move {
                    let chunk = body.next().await?;
                    let length = chunk.as_ref().map_or(0, Bytes::len);
                    source.schedule.pace.note_bytes(length);
                    Some((chunk.map(|chunk| (at, chunk)), (body, at + length as u64, lane)))
                }
            });
            chunks.boxed()
        };
        body.flatten_stream().boxed()
    }
}
