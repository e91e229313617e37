//! A range of a blob that comes over two connections at once.
//!
//! A connection carries what its congestion window allows in a round trip, which on long or busy links is a part of what the link
//! could carry. A reader who waits gets what he waits for over two.

use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use registry::{BlobReader, ByteStream, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Reads a range of a blob: up to `middle` by one request, and the rest by another one beside it. What comes of the second part
/// while the first is read waits in memory.
pub(super) async fn read(reader: &Arc<dyn BlobReader>, range: Range<u64>, middle: u64) -> Result<ByteStream> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let second = {
        let (reader, range) = (Arc::clone(reader), middle..range.end);
        tokio::spawn(async move {
            let mut body = match reader.read_range(range).await {
                Ok(body) => body,
                Err(error) => return drop(sender.send(Err(error))),
            };
            while let Some(chunk) = body.next().await {
                if sender.send(chunk).is_err() {
                    return;
                }
            }
        })
    };
    let second = AbortOnDropHandle::new(second);
    let first = reader.read_range(range.start..middle).await?;
    let second = futures::stream::unfold((receiver, second), |(mut receiver, second)| async move {
        Some((receiver.recv().await?, (receiver, second)))
    });
    Ok(first.chain(second).boxed())
}
