//! A range of a blob that comes in pieces, over several connections at once.
//!
//! On a long link a connection carries what its congestion window allows in a round trip, which is a part of what the link could
//! carry, and little in its first seconds, the more so if it began beside others. So a range is parted among all connections:
//! those that are quick take more of its pieces than those that are slow. And pieces are short: who needs something more urgently
//! gets the next one ([`super::lanes`]).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use registry::{BlobReader, ByteStream, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::lanes::Urgency;
use super::schedule::Schedule;

/// What waits for the bytes of a range.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Of what no reader waits for.
    pub(super) urgency: Urgency,
    /// The ends of the spans in the range, ascending, and whether a reader waits for them.
    pub(super) spans: Vec<(u64, Arc<AtomicBool>)>,
}

impl Wanted {
    /// How urgent the bytes at a position are. Spans come in their order, so what is before one that a reader waits for is as
    /// urgent as that.
    fn urgency(&self, position: u64) -> Urgency {
        let waited =
            |(end, demanded): &(u64, Arc<AtomicBool>)| *end > position && demanded.load(Ordering::Relaxed);
        if self.spans.iter().any(waited) { Urgency::Waited } else { self.urgency }
    }
}

/// A piece that is being fetched; what comes of it while those before it are read waits in memory.
struct Piece {
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

/// Reads a range of a blob in pieces of `size` bytes, of which as many are asked for at a time as there are lanes.
pub(super) fn read(
    reader: Arc<dyn BlobReader>,
    schedule: Arc<Schedule>,
    range: Range<u64>,
    wanted: Wanted,
    size: u64,
) -> ByteStream {
    let wanted = Arc::new(wanted);
    let starts = range.clone().step_by(usize::try_from(size).unwrap_or(usize::MAX));
    let ahead = schedule.lanes();
    let begin = move |start: u64| {
        let piece = start..range.end.min(start + size);
        let (sender, chunks) = mpsc::unbounded_channel();
        let (reader, schedule, wanted) = (Arc::clone(&reader), Arc::clone(&schedule), Arc::clone(&wanted));
        let task = tokio::spawn(fetch(reader, schedule, piece, wanted, sender));
        Piece { chunks, _task: AbortOnDropHandle::new(task) }
    };
    // Polled one after the other, so each begins when one of those before it has been read.
    let pieces = futures::stream::iter(starts).map(begin).map(std::future::ready).buffered(ahead);
    let chunks = |piece: Piece| {
        futures::stream::unfold(piece, |mut piece| async move { Some((piece.chunks.recv().await?, piece)) })
    };
    pieces.flat_map(chunks).boxed()
}

async fn fetch(
    reader: Arc<dyn BlobReader>,
    schedule: Arc<Schedule>,
    piece: Range<u64>,
    wanted: Arc<Wanted>,
    sender: mpsc::UnboundedSender<Result<Bytes>>,
) {
    let _lane = schedule.lane(|| wanted.urgency(piece.start)).await;
    let asked = Instant::now();
    let mut body = match reader.read_range(piece).await {
        Ok(body) => body,
        Err(error) => return drop(sender.send(Err(error))),
    };
    schedule.pace.note_answer(asked.elapsed());
    while let Some(chunk) = body.next().await {
        if let Ok(chunk) = &chunk {
            schedule.pace.note_bytes(chunk.len());
        }
        if sender.send(chunk).is_err() {
            return;
        }
    }
}
