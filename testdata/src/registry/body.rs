//! Response bodies: paced by the link, counted, and spoilt on request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;

use super::fault::Action;
use super::log::Entry;
use super::reply::Payload;
use super::server::{Cut, Shared};

/// How much of a file is read at once.
const READ: u64 = 256 << 10;

pub(super) fn empty() -> UnsyncBoxBody<Bytes, io::Error> {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

struct State {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    cut: Arc<Cut>,
    payload: Payload,
    /// Bytes sent.
    position: u64,
    /// Bytes of a blob that have been read and not sent.
    ahead: Bytes,
    short_at: Option<u64>,
    stall: Option<(u64, Duration)>,
    corrupt_at: Option<u64>,
}

/// The body of a response, changed by `fault`.
pub(super) fn shaped(
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    cut: Arc<Cut>,
    payload: Payload,
    fault: Option<&Action>,
) -> UnsyncBoxBody<Bytes, io::Error> {
    if payload.len() == 0 {
        entry.end();
        return empty();
    }
    let mut state = State {
        shared,
        entry,
        cut,
        payload,
        position: 0,
        ahead: Bytes::new(),
        short_at: None,
        stall: None,
        corrupt_at: None,
    };
    match fault {
        Some(Action::ShortBody(n)) => state.short_at = Some(*n),
        Some(Action::StallAfter(n, time)) => state.stall = Some((*n, *time)),
        Some(Action::CorruptByte(n)) => state.corrupt_at = Some(*n),
        _ => {}
    }
    let chunks = stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|chunk| (Frame::data(chunk), state)))
    });
    StreamBody::new(chunks).boxed_unsync()
}

impl Drop for State {
    fn drop(&mut self) {
        self.entry.end();
    }
}

impl State {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.short_at == Some(self.position) {
            self.cut.when_flushed();
            std::future::pending::<()>().await;
        }
        if self.position == self.payload.len() {
            return Ok(None);
        }
        if let Some((at, time)) = self.stall
            && at == self.position
        {
            self.stall = None;
            tokio::time::sleep(time).await;
        }
        // Faults happen between chunks, so a chunk never crosses one.
        let stops = [self.short_at, self.stall.map(|(at, _)| at)];
        let end = stops.into_iter().flatten().fold(self.payload.len(), u64::min);
        let want = (end - self.position).min(self.shared.link.chunk());
        let mut chunk = self.read(want).await?;
        if let Some(at) = self.corrupt_at
            && (self.position..self.position + chunk.len() as u64).contains(&at)
        {
            let mut changed = BytesMut::from(&chunk[..]);
            changed[(at - self.position) as usize] ^= 1;
            chunk = changed.freeze();
        }
        let length = chunk.len() as u64;
        self.shared.link.pass(length).await;
        self.position += length;
        self.shared.log.sent(&self.entry, length);
        if self.position == self.payload.len() {
            self.entry.end();
        }
        Ok(Some(chunk))
    }

    /// The next bytes: at least one, at most `want`.
    async fn read(&mut self, want: u64) -> io::Result<Bytes> {
        if self.ahead.is_empty() {
            let left = self.payload.len() - self.position;
            self.ahead = match &self.payload {
                Payload::Bytes(bytes) => bytes.slice(self.position as usize..),
                Payload::Blob { source, start, .. } => {
                    source.read(start + self.position, left.min(READ)).await?
                }
            };
        }
        let n = self.ahead.len().min(want as usize);
        Ok(self.ahead.split_to(n))
    }
}
