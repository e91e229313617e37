//! One request for a run of neighbouring spans.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use registry::BlobReader;
use tokio::sync::oneshot;

use crate::base::metrics::Operation;
use crate::content::FetchError;
use crate::content::layer::{LazyLayer, count};
use crate::content::link::chunked_range::{self, Wanted};
use crate::content::link::hedged_chunk::Source;
use crate::content::link::request_slots::Urgency;
use crate::content::spans::flight::Duty;
use crate::content::spans::sink::SpanSink;
use crate::content::spans::twin;

/// How often a span with a wrong digest is fetched again before the whole layer is.
const RETRIES: usize = 2;

/// The complaint about a server that would send everything for each span.
const IGNORED: &str = "the registry ignores ranges";

fn is_ignored(error: &registry::Error) -> bool {
    matches!(error, registry::Error::RangeIgnored { .. })
}

/// Neighbouring spans to fetch with one request.
pub(crate) struct Run {
    duties: VecDeque<Duty>,
    /// What nobody waits for: behind the duties, up to this span.
    end: usize,
    /// The last reader who had come when it began; for another one it gives way where nobody waits for it.
    arrival: u64,
    /// A reader waited for it when it began. His connection is worth more than the time that the rest of a span takes: another
    /// one would begin slowly, as all do.
    keeps_connection: bool,
    /// How much depends on what no reader waits for.
    urgency: Urgency,
    /// Wrong bytes are asked for again and again.
    insists: bool,
    /// Compressed bytes that have come.
    came: u64,
    /// Who waits until it has been asked for.
    before: Option<oneshot::Sender<()>>,
}

impl Run {
    /// The spans of these duties, which follow each other.
    pub(crate) fn new(duties: Vec<Duty>, urgency: Urgency, arrival: u64) -> Self {
        let keeps_connection = duties.iter().any(Duty::is_demanded);
        Self {
            duties: duties.into(),
            end: 0,
            arrival,
            keeps_connection,
            urgency,
            insists: true,
            came: 0,
            before: None,
        }
    }

    /// A span that nobody waits for, and that nobody may ever ask for. It does not give way.
    pub(crate) fn speculative(duty: Duty) -> Self {
        Self { insists: false, ..Self::new(vec![duty], Urgency::Likely, u64::MAX) }
    }

    /// The same, and what follows up to a span, as long as nobody else has it or fetches it.
    pub(crate) fn going_on_to(self, end: usize) -> Self {
        Self { end, ..self }
    }

    /// The same; the result ends when it has been asked for, or cannot be.
    pub(crate) fn going_before(mut self) -> (Self, oneshot::Receiver<()>) {
        let (sender, asked) = oneshot::channel();
        self.before = Some(sender);
        (self, asked)
    }

    /// What is to be fetched first of what is left.
    pub(crate) fn take_first(&mut self) -> Option<Duty> {
        self.duties.pop_front()
    }

    /// Whether a reader waits for any of it.
    fn is_demanded(&self) -> bool {
        self.duties.iter().any(Duty::is_demanded)
    }
}

/// What there is to do next about a request.
enum Next {
    /// To take these bytes.
    Chunk(registry::Result<Bytes>),
    /// Nothing: all have come.
    End,
    /// To leave the link to a reader.
    GiveWay,
}

impl From<Option<registry::Result<Bytes>>> for Next {
    fn from(chunk: Option<registry::Result<Bytes>>) -> Self {
        chunk.map_or(Self::End, Self::Chunk)
    }
}

impl LazyLayer {
    /// Fetches neighbouring spans, in ascending order, and ends their flights. Whatever is left when the future is
    /// dropped, or when it gives way to a reader, ends as cancelled.
    pub(crate) async fn fly(&self, mut run: Run) {
        // What no reader waits for has turns of its own, so that it never keeps one from his.
        let permit = if run.keeps_connection { self.schedule().connection().await } else { None };
        let mut corrupt = VecDeque::new();
        let (started, first) = (Instant::now(), run.duties.front().map(|duty| duty.span));
        let outcome = self.stream_or_stand_in(&mut run, &mut corrupt).await;
        self.metrics().observe(Operation::RemoteRegistryGet, started.elapsed());
        drop(permit);
        tracing::debug!(layer = %self.digest(), first, demanded = run.keeps_connection, bytes = run.came,
            milliseconds = started.elapsed().as_millis() as u64, "a request for spans ended");
        match outcome {
            Ok(()) => {}
            // Each read would cost all that is before it, too.
            Err(FetchError::Registry(registry::Error::RangeIgnored { .. })) => {
                corrupt.extend(run.duties.drain(..).map(|duty| (duty, IGNORED.to_owned())));
            }
            Err(error) => {
                tracing::warn!(layer = %self.digest(), %error, "cannot fetch spans");
                run.duties.drain(..).for_each(|duty| duty.land(Err(error.clone())));
            }
        }
        while let Some((duty, complaint)) = corrupt.pop_front() {
            // Whoever has come for it meanwhile tries once more by himself.
            let outcome = if run.insists {
                self.insist(complaint, duty.span).await
            } else {
                Err(FetchError::Corrupt {
                    layer: self.digest().to_string(),
                    span: duty.span,
                    reason: complaint,
                })
            };
            duty.land(outcome);
        }
    }

    /// Takes the spans of a run from the layer, or if that is gone and there is one, from another one with the same
    /// content.
    async fn stream_or_stand_in(
        &self,
        run: &mut Run,
        corrupt: &mut VecDeque<(Duty, String)>,
    ) -> Result<(), FetchError> {
        let mut wait = twin::FIRST_WAIT;
        let mut tries = 0;
        let mut tried = false;
        loop {
            // As long as there is somebody else to ask, nobody is waited for.
            let patient = tried || !self.twins.are_there();
            tries += 1;
            match self.stream(run, corrupt, patient).await {
                // It may have been found only now.
                Err(FetchError::Registry(error))
                    if !tried && !is_ignored(&error) && self.twins.are_there() =>
                {
                    if tries < twin::TRIES && !error.is_final() {
                        tokio::time::sleep(wait).await;
                        wait *= 2;
                        continue;
                    }
                    tried = true;
                    if self.take_from_twin(run).await {
                        return Ok(());
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Requests the spans of a run and takes them as they come. Spans whose bytes are wrong are set aside. `patient`:
    /// what is refused is waited for.
    async fn stream(
        &self,
        run: &mut Run,
        corrupt: &mut VecDeque<(Duty, String)>,
        patient: bool,
    ) -> Result<(), FetchError> {
        let spans = self.table().spans();
        let Some((first, last)) = run.duties.front().zip(run.duties.back()) else { return Ok(()) };
        let (first, last) = (first.span, last.span);
        let end = spans.compressed(run.end.min(spans.len()).max(last + 1) - 1).end;
        let (mut sink, mut position) = match self.parked().take(first) {
            Some(unfinished) => unfinished,
            None => (self.sink(first)?, spans.compressed(first).start),
        };
        let begin = position;
        let (mut body, in_pieces) = self.open(run, begin..end, patient).await?;
        drop(run.before.take());
        loop {
            let gives_way = !in_pieces && !run.keeps_connection;
            let chunk = match self.next_chunk(run, &mut body, position, gives_way).await {
                Next::Chunk(chunk) => chunk?,
                Next::End => break,
                Next::GiveWay => {
                    // Before the flight ends: whoever comes for it then goes on from here.
                    if let Some(room) = self.schedule().room() {
                        self.parked().put(sink, position, room);
                    }
                    run.duties.clear();
                    return Ok(());
                }
            };
            count(&self.counters.fetched_bytes, chunk.len() as u64);
            run.came += chunk.len() as u64;
            if !in_pieces {
                self.schedule().pace.note_bytes(chunk.len());
            }
            let reached = position + chunk.len() as u64;
            // A chunk may hold the rest of one span, all of others, and the start of yet another. Neighbours may
            // share a byte, so a span's part is found by its own bounds.
            while let Some(span) = run.duties.front().map(|duty| duty.span) {
                let wanted = spans.compressed(span);
                let (from, to) = (wanted.start.max(position), wanted.end.min(reached));
                if from < to {
                    sink.push(&chunk[(from - position) as usize..(to - position) as usize]).await;
                }
                if reached < wanted.end {
                    break;
                }
                match sink.finish() {
                    Ok(verified) => {
                        self.accept(span, verified);
                        run.duties.pop_front().into_iter().for_each(|duty| duty.land(Ok(())));
                    }
                    Err(complaint) => {
                        count(&self.counters.corrupt_spans, 1);
                        tracing::warn!(layer = %self.digest(), span, "{complaint}");
                        corrupt.extend(run.duties.pop_front().map(|duty| (duty, complaint)));
                    }
                }
                let goes_on =
                    !run.keeps_connection || span <= last || !self.schedule().is_disturbed(run.arrival);
                if run.duties.is_empty() && span + 1 < run.end && goes_on {
                    run.duties.extend(self.claim_one(span + 1));
                    self.parked().forget(span + 1);
                }
                let Some(next) = run.duties.front() else {
                    if reached == end {
                        // A body whose end was seen leaves its connection to the next request. The reader does not
                        // wait long for that.
                        let _ = body.next().await;
                    }
                    return Ok(());
                };
                sink = self.sink(next.span)?;
            }
            position = reached;
        }
        // The reader promises all bytes or an error.
        let reason = format!("the blob ended at byte {position} instead of {end}");
        corrupt.extend(run.duties.drain(..).map(|duty| (duty, reason.clone())));
        Ok(())
    }

    /// Waits for the next bytes, and if nobody waits for the run, for a reader to whom it has to give way.
    async fn next_chunk(
        &self,
        run: &Run,
        body: &mut registry::ByteStream,
        position: u64,
        gives_way: bool,
    ) -> Next {
        if gives_way && !run.is_demanded() {
            tokio::select! {
                biased;
                () = self.schedule().disturbed(run.arrival) => {
                    let end = run.duties.front().map_or(0, |duty| self.table().spans().compressed(duty.span).end);
                    let pace = &self.schedule().pace;
                    // The reader's own first byte is a round trip away: until then the link has nothing else to do.
                    let left = pace.transfer(end.saturating_sub(position));
                    if run.is_demanded() {
                        return body.next().await.into();
                    }
                    if left > pace.round_trip() {
                        return Next::GiveWay;
                    }
                    let rest = tokio::time::timeout(pace.round_trip() * 2, body.next()).await;
                    return rest.map_or(Next::GiveWay, Next::from);
                }
                chunk = body.next() => return chunk.into(),
            }
        }
        body.next().await.into()
    }

    /// Begins to read a range, in pieces if the link is long. Whether it is in pieces.
    async fn open(
        &self,
        run: &Run,
        range: Range<u64>,
        patient: bool,
    ) -> Result<(registry::ByteStream, bool), FetchError> {
        let schedule = self.schedule();
        if let Some(size) = schedule.pace.piece().filter(|_| patient) {
            let spans = self.table().spans();
            let spans =
                run.duties.iter().map(|duty| (spans.compressed(duty.span).end, duty.demand())).collect();
            let wanted = Wanted { urgency: run.urgency, spans };
            let source = Source {
                reader: self.reader(),
                schedule: Arc::clone(schedule),
                requests: Arc::clone(&self.counters.requests),
            };
            return Ok((chunked_range::read(source, range, wanted, size), true));
        }
        let asked = Instant::now();
        count(&self.counters.requests, 1);
        let reader = self.reader();
        let body = if patient { reader.read_range(range).await? } else { reader.attempt(range, 0).await? };
        schedule.pace.note_answer(asked.elapsed());
        Ok((body, false))
    }

    fn sink(&self, span: usize) -> Result<SpanSink, FetchError> {
        SpanSink::new(self.table(), span, self.ztoc(), self.cache().clone())
    }

    /// Fetches a span alone; `Err` inside is what is wrong with its bytes. `begin`: where in the layer to begin to
    /// read, in front of the span.
    async fn fetch_alone(
        &self,
        span: usize,
        reader: &dyn BlobReader,
        begin: Option<u64>,
    ) -> Result<Result<(), String>, FetchError> {
        count(&self.counters.requests, 1);
        let wanted = self.table().spans().compressed(span);
        let begin = begin.unwrap_or(wanted.start);
        let mut body = reader.read_range(begin..wanted.end).await?;
        let mut sink = self.sink(span)?;
        let mut skip = wanted.start.saturating_sub(begin);
        while let Some(chunk) = body.next().await {
            let mut chunk: Bytes = chunk?;
            count(&self.counters.fetched_bytes, chunk.len() as u64);
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            chunk.advance(skipped as usize);
            sink.push(&chunk).await;
        }
        match sink.finish() {
            Ok(verified) => {
                self.accept(span, verified);
                Ok(Ok(()))
            }
            Err(complaint) => Ok(Err(complaint)),
        }
    }

    /// Insists on a span that was wrong: again, and then from the whole, verified layer.
    async fn insist(&self, mut complaint: String, span: usize) -> Result<(), FetchError> {
        let corrupt = |reason: String| FetchError::Corrupt { layer: self.digest().to_string(), span, reason };
        if !self.has_whole() && complaint != IGNORED {
            let _permit = self.schedule().connection().await;
            for _ in 0..RETRIES {
                let started = Instant::now();
                let fetched = self.fetch_alone(span, &*self.reader(), None).await;
                self.metrics().observe(Operation::RemoteRegistryGet, started.elapsed());
                match fetched {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(again)) => complaint = again,
                    Err(FetchError::Registry(registry::Error::RangeIgnored { .. })) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let local = match self.fetch_whole().await {
            Ok(local) => local,
            // The disk has no room for a copy: all that is in front of the span is read, and thrown away.
            Err(FetchError::Cache(_)) => {
                let fetched = self.fetch_alone(span, &*self.reader(), Some(0)).await?;
                return fetched.map_err(|again| corrupt(format!("{complaint}; {again}")));
            }
            Err(error) => return Err(corrupt(format!("{complaint}; {error}"))),
        };
        match self.fetch_alone(span, &*local, None).await? {
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
