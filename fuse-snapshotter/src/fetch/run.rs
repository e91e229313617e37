//! One request for a run of neighbouring spans.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use registry::BlobReader;

use super::FetchError;
use super::flight::Duty;
use super::layer::{LazyLayer, count};
use super::span::SpanSink;
use crate::metrics::Operation;

/// How often a span with a wrong digest is fetched again before the whole layer is.
const RETRIES: usize = 2;

/// The complaint about a server that would send everything for each span.
const IGNORED: &str = "the registry ignores ranges";

impl LazyLayer {
    /// Fetches neighbouring spans, in ascending order, and ends their flights. Whatever is left when the future is
    /// dropped ends as cancelled.
    pub(super) async fn fly(&self, duties: Vec<Duty>) {
        let mut duties = VecDeque::from(duties);
        let permit = self.connections().acquire().await;
        let mut corrupt = VecDeque::new();
        let started = Instant::now();
        let outcome = self.stream(&mut duties, &mut corrupt).await;
        self.metrics().observe(Operation::RemoteRegistryGet, started.elapsed());
        drop(permit);
        match outcome {
            Ok(()) => {}
            // Each read would cost all that is before it, too.
            Err(FetchError::Registry(registry::Error::RangeIgnored { .. })) => {
                corrupt.extend(duties.drain(..).map(|duty| (duty, IGNORED.to_owned())));
            }
            Err(error) => {
                tracing::warn!(layer = %self.digest(), %error, "cannot fetch spans");
                duties.drain(..).for_each(|duty| duty.land(Err(error.clone())));
            }
        }
        while let Some((duty, complaint)) = corrupt.pop_front() {
            let outcome = self.insist(complaint, duty.span).await;
            duty.land(outcome);
        }
    }

    /// Requests the spans of a run and takes them as they come. Spans whose bytes are wrong are set aside.
    async fn stream(
        &self,
        duties: &mut VecDeque<Duty>,
        corrupt: &mut VecDeque<(Duty, String)>,
    ) -> Result<(), FetchError> {
        let spans = self.table().spans();
        let Some((first, last)) = duties.front().zip(duties.back()) else { return Ok(()) };
        let range = spans.compressed(first.span).start..spans.compressed(last.span).end;
        let mut position = range.start;
        let mut body = self.open(range.clone()).await?;
        let mut sink = self.sink(first.span)?;
        while let Some(chunk) = body.next().await {
            let chunk: Bytes = chunk?;
            count(&self.counters.fetched_bytes, chunk.len() as u64);
            let end = position + chunk.len() as u64;
            // A chunk may hold the rest of one span, all of others, and the start of yet another. Neighbours may
            // share a byte, so a span's part is found by its own bounds.
            while let Some(duty) = duties.front() {
                let wanted = spans.compressed(duty.span);
                let (from, to) = (wanted.start.max(position), wanted.end.min(end));
                if from < to {
                    sink.push(&chunk[(from - position) as usize..(to - position) as usize]).await?;
                }
                if end < wanted.end {
                    break;
                }
                match sink.finish() {
                    Ok(verified) => {
                        self.accept(verified)?;
                        duties.pop_front().into_iter().for_each(|duty| duty.land(Ok(())));
                    }
                    Err(complaint) => {
                        count(&self.counters.corrupt_spans, 1);
                        tracing::warn!(layer = %self.digest(), span = duty.span, "{complaint}");
                        corrupt.extend(duties.pop_front().map(|duty| (duty, complaint)));
                    }
                }
                let Some(next) = duties.front() else {
                    // A body whose end was seen leaves its connection to the next request. The reader does not
                    // wait long for that.
                    let _ = body.next().await;
                    return Ok(());
                };
                sink = self.sink(next.span)?;
            }
            position = end;
        }
        // The reader promises all bytes or an error.
        let reason = format!("the blob ended at byte {position} instead of {}", range.end);
        corrupt.extend(duties.drain(..).map(|duty| (duty, reason.clone())));
        Ok(())
    }

    async fn open(&self, range: Range<u64>) -> Result<registry::ByteStream, FetchError> {
        count(&self.counters.requests, 1);
        Ok(self.reader().read_range(range).await?)
    }

    fn sink(&self, span: usize) -> Result<SpanSink<'_>, FetchError> {
        SpanSink::new(self.table(), span, self.ztoc(), self.cache().clone())
    }

    /// Fetches a span alone; `Err` inside is what is wrong with its bytes.
    async fn fetch_alone(
        &self,
        span: usize,
        reader: &dyn BlobReader,
    ) -> Result<Result<(), String>, FetchError> {
        count(&self.counters.requests, 1);
        let mut body = reader.read_range(self.table().spans().compressed(span)).await?;
        let mut sink = self.sink(span)?;
        while let Some(chunk) = body.next().await {
            let chunk: Bytes = chunk?;
            count(&self.counters.fetched_bytes, chunk.len() as u64);
            sink.push(&chunk).await?;
        }
        match sink.finish() {
            Ok(verified) => self.accept(verified).map(Ok),
            Err(complaint) => Ok(Err(complaint)),
        }
    }

    /// Insists on a span that was wrong: again, and then from the whole, verified layer.
    async fn insist(&self, mut complaint: String, span: usize) -> Result<(), FetchError> {
        let corrupt = |reason: String| FetchError::Corrupt { layer: self.digest().to_string(), span, reason };
        if !self.has_whole() && complaint != IGNORED {
            let _permit = self.connections().acquire().await;
            for _ in 0..RETRIES {
                let started = Instant::now();
                let fetched = self.fetch_alone(span, &*self.reader()).await;
                self.metrics().observe(Operation::RemoteRegistryGet, started.elapsed());
                match fetched {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(again)) => complaint = again,
                    Err(FetchError::Registry(registry::Error::RangeIgnored { .. })) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let local = self.fetch_whole().await.map_err(|error| corrupt(format!("{complaint}; {error}")))?;
        match self.fetch_alone(span, &*local).await? {
            Ok(()) => Ok(()),
            Err(reason) => {
                tracing::error!(layer = %self.digest(), span, %reason,
                    "the zTOC contradicts the layer, which is intact; rebuild the SOCI index of this image");
                Err(FetchError::False {
                    layer: self.digest().to_string(),
                    reason: format!("span {span}: {reason}"),
                })
            }
        }
    }
}
