//! Insisting on a span whose bytes were wrong: again, and then from the whole, verified layer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Buf;
use futures::StreamExt;

use super::fetcher::SpanFetcher;
use super::stream::IGNORED;
use super::whole_layer;
use crate::base::metrics::Operation;
use crate::content::error::FetchError;
use crate::content::link::ask::Patience;
use crate::content::link::sources::{Source, Verdict};

/// How often a span with a wrong digest is fetched again before the whole layer is.
const RETRIES: usize = 2;

impl SpanFetcher {
    /// Fetches a span alone; `Err` inside is what is wrong with its bytes. `begin`: where in the layer to begin to
    /// read, in front of the span.
    async fn fetch_alone(
        &self,
        span: usize,
        sources: &[Arc<Source>],
        begin: Option<u64>,
    ) -> Result<Result<(), String>, FetchError> {
        let wanted = self.table().spans().compressed(span);
        let begin = begin.unwrap_or(wanted.start);
        let (mut body, source) = self.link().ask(begin..wanted.end, sources, Patience::Wait).await?;
        let mut sink = self.sink(span)?;
        let mut skip = wanted.start.saturating_sub(begin);
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk?;
            self.counters().fetched_bytes.add(chunk.len() as u64);
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            chunk.advance(skipped as usize);
            sink.push(&chunk).await;
        }
        match sink.finish() {
            Ok(verified) => {
                source.report(Verdict::Verified);
                self.accept(span, verified);
                Ok(Ok(()))
            }
            Err(complaint) => {
                source.report(Verdict::Wrong);
                Ok(Err(complaint))
            }
        }
    }

    /// Insists on a span that was wrong: again, and then from the whole, verified layer.
    pub(super) async fn insist(&self, mut complaint: String, span: usize) -> Result<(), FetchError> {
        if !self.whole().is_there() && complaint != IGNORED {
            let _permit = self.link().connection().await;
            for _ in 0..RETRIES {
                let started = Instant::now();
                let fetched = self.fetch_alone(span, &self.sources().list(), None).await;
                self.metrics().observe(Operation::RemoteRegistryGet, started.elapsed());
                match fetched {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(again)) => complaint = again,
                    Err(FetchError::Registry(registry::Error::RangeIgnored { .. })) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let copied = self.whole().get(async || {
            let count = |bytes| self.counters().fetched_bytes.add(bytes);
            whole_layer::copy(self.contents(), self.link(), self.sources(), self.size(), count).await
        });
        match copied.await {
            Ok(()) => {}
            // The disk has no room for a copy: all that is in front of the span is read, and thrown away.
            Err(FetchError::Cache(_)) => {
                let fetched = self.fetch_alone(span, &self.sources().list(), Some(0)).await?;
                return fetched.map_err(|again| self.corrupt(span, format!("{complaint}; {again}")));
            }
            Err(error) => return Err(self.corrupt(span, format!("{complaint}; {error}"))),
        }
        // The copy alone: what is wrong there is wrong in the zTOC.
        let sources = self.sources().list();
        match self.fetch_alone(span, sources.get(..1).unwrap_or_default(), None).await? {
            Ok(()) => Ok(()),
            Err(reason) => {
                let layer = self.contents().digest();
                tracing::error!(%layer, span, %reason,
                    "the zTOC contradicts the layer, which is intact; rebuild the SOCI index of this image");
                Err(FetchError::False { layer: layer.to_string(), reason: format!("span {span}: {reason}") })
            }
        }
    }
}
