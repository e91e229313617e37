//! A range of a blob that comes in pieces, over several connections at once.
//!
//! On a long link a connection carries what its congestion window allows in a round trip, which is a part of what the link could
//! carry, and little in its first seconds, the more so if it began beside others. So a range is parted among all connections:
//! those that are quick take more of its pieces than those that are slow. And pieces are short: who needs something more urgently
//! gets the next one ([`crate::content::link::request_slots`]).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use registry::{ByteStream, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::content::link::hedged_chunk::{self, Source};
use crate::content::link::request_slots::Urgency;
use crate::content::spans::flight::Demand;

/// What waits for the bytes of a range.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Of what no reader waits for.
    pub(crate) urgency: Urgency,
    /// The ends of the spans in the range, ascending, and how urgent they are to others.
    pub(crate) spans: Vec<(u64, Arc<Demand>)>,
}

impl Wanted {
    /// How urgent the bytes at a position are. Spans come in their order, so what is before one that a reader waits for is as
    /// urgent as that.
    fn urgency(&self, position: u64) -> Urgency {
        let from_here = self.spans.iter().filter(|(end, _)| *end > position);
        from_here.map(|(_, demand)| demand.urgency()).fold(self.urgency, Urgency::min)
    }
}

/// A piece that is being fetched; what comes of it while those before it are read waits in memory.
struct Piece {
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

/// Bytes of a range that are asked for before those in front of them have come. Who comes later and is less urgent cannot get
/// between them.
const AHEAD: u64 = 8 << 20;

/// Reads a range of a blob in pieces of `size` bytes.
pub(crate) fn read(source: Source, range: Range<u64>, wanted: Wanted, size: u64) -> ByteStream {
    let ahead = usize::try_from(AHEAD / size.max(1)).unwrap_or(0).max(source.schedule.lanes());
    let wanted = Arc::new(wanted);
    let mut starts = range.clone().step_by(usize::try_from(size).unwrap_or(usize::MAX));
    let begin = move |start: u64| {
        let piece = start..range.end.min(start + size);
        let (sender, chunks) = mpsc::unbounded_channel();
        let wanted = Arc::clone(&wanted);
        let urgency = move || wanted.urgency(start);
        // In the order of the pieces, and before anybody who comes later.
        let lane = source.schedule.lane(urgency.clone());
        let task = tokio::spawn(hedged_chunk::fetch(source.clone(), piece, lane, urgency, sender));
        Piece { chunks, _task: AbortOnDropHandle::new(task) }
    };
    let pieces: VecDeque<_> = starts.by_ref().take(ahead).map(&begin).collect();
    let next = |(mut pieces, mut starts, begin): (VecDeque<Piece>, _, _)| async move {
        loop {
            if let Some(chunk) = pieces.front_mut()?.chunks.recv().await {
                return Some((chunk, (pieces, starts, begin)));
            }
            pieces.pop_front();
            pieces.extend(Iterator::next(&mut starts).map(&begin));
        }
    };
    futures::stream::unfold((pieces, starts, begin), next).boxed()
}
