//! The body of a ranged read, continued with a new request when the connection breaks.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures::StreamExt;

use super::open_body::OpenBody;
use super::remote::RegistryBlob;
use super::straggler::Progress;
use crate::body::{self, ByteStream};
use crate::error::{Error, Result};
use crate::retry::Backoff;
use crate::tls::Purpose;

/// After this much progress a broken connection counts as the first one again, so that long transfers over bad
/// lines come to an end, and ones that make no progress fail.
const PROGRESS: u64 = 1 << 20;
/// How long to wait for the end of a body whose bytes are all there. Only with the end seen can the connection be
/// used again.
const END_WAIT: Duration = Duration::from_millis(50);

pub(super) struct ResumingBody {
    blob: RegistryBlob,
    /// What is still to be given out.
    range: Range<u64>,
    /// A read of the whole blob: more bytes than the size are an error then.
    whole: bool,
    open: Option<OpenBody>,
    backoff: Backoff,
    progress: Progress,
    /// Where the connection broke last.
    broke_at: u64,
}

impl ResumingBody {
    /// Opens the first response, so that errors which concern the whole read come at once.
    pub(super) async fn start(blob: RegistryBlob, range: Range<u64>) -> Result<ByteStream> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let whole = range.start == 0 && range.end == super::BlobReader::size(&blob);
        let open = Some(blob.open(range.clone()).await?);
        let backoff = blob.backoff();
        let progress = Progress::default();
        let body = Self { broke_at: range.start, blob, range, whole, open, backoff, progress };
        let pieces = futures::stream::unfold(Some(body), |body| async move {
            let mut body = body?;
            match body.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(body))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(pieces.boxed())
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.range.is_empty() {
                return self.finish().await.map(|()| None);
            }
            let Some(open) = &mut self.open else {
                self.open = Some(self.blob.open(self.range.clone()).await?);
                continue;
            };
            if self.range.start >= open.end {
                // The server gave less than asked for; go on from there.
                self.open = None;
                continue;
            }
            let shared = &self.blob.shared;
            let (context, timeouts) = (&open.reply.context, shared.client.timeouts());
            let idle = open.reply.pace.patience(timeouts.stall, timeouts.idle, self.backoff.retries());
            let begun = Instant::now();
            let chunk = body::chunk(&mut open.reply.response, idle, &shared.counters, context).await;
            let waited = begun.elapsed();
            match &chunk {
                Ok(_) => open.reply.pace.note(begun.elapsed()),
                Err(Error::Timeout { .. }) => {
                    tracing::debug!(%context, position = self.range.start, "the connection has fallen silent");
                    let transport = shared.client.transport();
                    transport.give_up(&open.reply.url, Purpose::Blob, begun);
                    if self.blob.is_short() {
                        transport.give_up(&open.reply.url, Purpose::Api, begun);
                    }
                }
                Err(_) => {}
            }
            match chunk {
                Ok(Some(mut piece)) => {
                    open.reply.connection.note(piece.len());
                    let skipped = open.skip.min(piece.len() as u64);
                    open.skip -= skipped;
                    piece.advance(skipped as usize);
                    let wanted = (open.end - self.range.start).min(piece.len() as u64);
                    if self.whole && wanted < piece.len() as u64 {
                        return Err(Error::protocol(context, "the blob is longer than its descriptor says"));
                    }
                    piece.truncate(wanted as usize);
                    if piece.is_empty() {
                        continue;
                    }
                    self.range.start += wanted;
                    let left = open.end - self.range.start;
                    if self.progress.straggles(&open.reply.pace.traffic, waited, wanted, left) {
                        tracing::debug!(%context, position = self.range.start, "the connection is slow; using another one");
                        self.open = None;
                    }
                    return Ok(Some(piece));
                }
                Ok(None) => {
                    let reason = format!("the body ended {} bytes early", open.end - self.range.start);
                    let error = Error::Transport { context: context.clone(), reason };
                    self.broken(error).await?;
                }
                Err(error) => self.broken(error).await?,
            }
        }
    }

    /// A connection broke: waits a little before the rest is asked for, or gives up.
    async fn broken(&mut self, error: Error) -> Result<()> {
        self.open = None;
        if self.range.start - self.broke_at >= PROGRESS {
            self.backoff.reset();
        }
        self.broke_at = self.range.start;
        self.backoff.pause(error).await?;
        self.blob.shared.counters.add_resumed(1);
        Ok(())
    }

    /// All bytes are given out: looks for the end of the body.
    async fn finish(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let shared = &self.blob.shared;
        let context = &open.reply.context;
        let end = body::chunk(&mut open.reply.response, END_WAIT, &shared.counters, context).await;
        if let Ok(None) = end {
            open.reply.connection.end();
        }
        match end {
            Ok(Some(_)) if self.whole => {
                Err(Error::protocol(context, "the blob is longer than its descriptor says"))
            }
            // More bytes (of a whole blob sent for a range), no end in time, or a late failure: the connection is
            // given up, the read is complete.
            _ => Ok(()),
        }
    }
}
