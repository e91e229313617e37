//! A range of a blob that comes in chunks, over several connections at once.
//!
//! On a long link a connection carries what its congestion window allows in a round trip. That is a part of what the
//! link could carry, and little in its first seconds, the more so if it began beside others. So a range is divided
//! among all connections: the quick ones take more of its chunks than the slow ones. Chunks are short, so that a more
//! urgent request gets the next slot soon ([`request_slots`](super::request_slots)).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use registry::Result;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::hedged_chunk::{self, Origin};
use super::links::Link;
use super::priority::RangePriorities;
use super::sources::{Received, Source};

/// A chunk that is being fetched. What comes of it while those before it are read waits in memory.
struct PendingChunk {
    bytes: mpsc::UnboundedReceiver<Result<Received>>,
    _task: AbortOnDropHandle<()>,
}

/// Bytes of a range that are asked for before those in front of them have come. A later, less urgent request cannot get
/// between them.
const AHEAD: u64 = 8 << 20;

/// Reads a range of a blob in chunks of `size` bytes.
pub(super) fn read(
    link: &Arc<Link>,
    range: Range<u64>,
    priorities: RangePriorities,
    sources: Vec<Arc<Source>>,
    size: u64,
) -> BoxStream<'static, Result<Received>> {
    let ahead = usize::try_from(AHEAD / size.max(1)).unwrap_or(0).max(link.slots.count());
    let (priorities, origin) = (Arc::new(priorities), Origin::new(link, sources));
    let mut starts = range.clone().step_by(usize::try_from(size).unwrap_or(usize::MAX));
    let begin = move |start: u64| {
        let chunk = start..range.end.min(start + size);
        let (sender, bytes) = mpsc::unbounded_channel();
        let priorities = Arc::clone(&priorities);
        let priority = move || priorities.at(start);
        // In the order of the chunks, and before anybody that comes later.
        let slot = origin.slot(priority.clone());
        let task = tokio::spawn(hedged_chunk::fetch(origin.clone(), chunk, slot, priority, sender));
        PendingChunk { bytes, _task: AbortOnDropHandle::new(task) }
    };
    let chunks: VecDeque<_> = starts.by_ref().take(ahead).map(&begin).collect();
    let next = |(mut chunks, mut starts, begin): (VecDeque<PendingChunk>, _, _)| async move {
        loop {
            if let Some(received) = chunks.front_mut()?.bytes.recv().await {
                return Some((received, (chunks, starts, begin)));
            }
            chunks.pop_front();
            chunks.extend(Iterator::next(&mut starts).map(&begin));
        }
    };
    futures::stream::unfold((chunks, starts, begin), next).boxed()
}
