//! One request for neighbouring spans: its bytes are verified and taken into the cache as they come.

use std::collections::VecDeque;
use std::time::Instant;

use super::fetcher::SpanFetcher;
use super::request::{SpanRequest, SpanTicket};
use super::sink::{SpanContents, SpanSink, Verified};
use super::twin;
use crate::base::metrics::Operation;
use crate::content::error::FetchError;
use crate::content::link::ask::Patience;
use crate::content::link::read::{Body, Next};
use crate::content::link::sources::{Received, Senders, Verdict};

/// The complaint about a server that would send everything for each span.
pub(super) const IGNORED: &str = "the registry ignores ranges";

/// Spans whose bytes are wrong, and what is wrong with them.
type Corrupt = VecDeque<(SpanTicket, String)>;

fn is_ignored(error: &registry::Error) -> bool {
    matches!(error, registry::Error::RangeIgnored { .. })
}

/// A span that is coming.
struct Incoming {
    sink: SpanSink,
    senders: Senders,
}

impl Incoming {
    fn new(sink: SpanSink) -> Self {
        Self { sink, senders: Senders::default() }
    }
}

/// How far a request has come.
struct Progress {
    incoming: Incoming,
    /// Where in the layer the next bytes stand.
    position: u64,
    /// The last span that was asked for from the beginning.
    last: usize,
}

impl SpanFetcher {
    /// Fetches neighbouring spans, in ascending order, and ends their flights. Whatever is left when the future is
    /// dropped, or when it gives way to a reader, ends as cancelled.
    pub(crate) async fn fetch(&self, mut request: SpanRequest) {
        // What no reader waits for has turns of its own, so that it never keeps a reader from its connection.
        let demanded = request.began_demanded();
        let permit = if demanded { self.link().connection().await } else { None };
        let mut corrupt = Corrupt::new();
        let (started, first) = (Instant::now(), request.tickets.front().map(|ticket| ticket.span));
        let fetched = self.stream_or_stand_in(&mut request, &mut corrupt).await;
        self.metrics().observe(Operation::RemoteRegistryGet, started.elapsed());
        drop(permit);
        let layer = self.contents().digest();
        tracing::debug!(%layer, first, demanded, bytes = request.received,
            milliseconds = started.elapsed().as_millis() as u64, sources = ?self.sources(),
            "a request for spans ended");
        match fetched {
            Ok(()) => {}
            // Each read would cost all that is before it, too.
            Err(FetchError::Registry(error)) if is_ignored(&error) => {
                corrupt.extend(request.tickets.drain(..).map(|ticket| (ticket, IGNORED.to_owned())));
            }
            Err(error) => {
                tracing::warn!(%layer, %error, "cannot fetch spans");
                request.tickets.drain(..).for_each(|ticket| ticket.complete(Err(error.clone())));
            }
        }
        while let Some((ticket, complaint)) = corrupt.pop_front() {
            // Whoever has come for it meanwhile tries once more.
            let fetched = if request.insists() {
                self.insist(complaint, ticket.span).await
            } else {
                Err(self.corrupt(ticket.span, complaint))
            };
            ticket.complete(fetched);
        }
    }

    pub(super) fn corrupt(&self, span: usize, reason: String) -> FetchError {
        FetchError::Corrupt { layer: self.contents().digest().to_string(), span, reason }
    }

    /// Takes spans from the layer, or if that is gone and there is one, from another one with the same content.
    async fn stream_or_stand_in(
        &self,
        request: &mut SpanRequest,
        corrupt: &mut Corrupt,
    ) -> Result<(), FetchError> {
        let mut wait = twin::FIRST_WAIT;
        let mut tries = 0;
        let mut tried = false;
        loop {
            // As long as there is somebody else to ask, nobody is waited for.
            let patience = if tried || !self.twins().are_there() { Patience::Wait } else { Patience::Once };
            tries += 1;
            match self.stream(request, corrupt, patience).await {
                // It may have been found only now.
                Err(FetchError::Registry(error))
                    if !tried && !is_ignored(&error) && self.twins().are_there() =>
                {
                    if tries < twin::TRIES && !error.is_final() {
                        tokio::time::sleep(wait).await;
                        wait *= 2;
                        continue;
                    }
                    tried = true;
                    if self.take_from_twin(request).await {
                        return Ok(());
                    }
                }
                fetched => return fetched,
            }
        }
    }

    /// Takes spans from a verified copy of another image's layer. Whether there was one.
    async fn take_from_twin(&self, request: &mut SpanRequest) -> bool {
        let Some(copy) = self.twins().copy(self.contents()).await else { return false };
        while let Some(ticket) = request.tickets.pop_front() {
            let taken = SpanContents::copied(self.contents(), ticket.span, &copy);
            let taken = taken.map(|verified| self.accept(ticket.span, verified)).map_err(FetchError::from);
            ticket.complete(taken);
        }
        true
    }

    /// Requests spans and takes them as they come. Spans whose bytes are wrong are set aside.
    async fn stream(
        &self,
        request: &mut SpanRequest,
        corrupt: &mut Corrupt,
        patience: Patience,
    ) -> Result<(), FetchError> {
        let spans = self.table().spans();
        let Some((first, last)) = request.tickets.front().zip(request.tickets.back()) else { return Ok(()) };
        let (first, last) = (first.span, last.span);
        let end = spans.compressed(request.end.min(spans.len()).max(last + 1) - 1).end;
        let (sink, position) = match self.partial().take(first) {
            Some(unfinished) => unfinished,
            None => (self.sink(first)?, spans.compressed(first).start),
        };
        let priorities = request.priorities(self.table());
        let sources = self.sources().list();
        let mut body = self.link().read(position..end, priorities, sources, patience).await?;
        drop(request.asked.take());
        let mut progress = Progress { incoming: Incoming::new(sink), position, last };
        loop {
            let received = match self.next(request, &mut body, progress.position).await {
                Next::Chunk(received) => received?,
                Next::End => break,
                Next::GiveWay => {
                    // Before the flight ends: whoever comes for it then goes on from here.
                    if let Some(room) = self.link().room_for_unfinished() {
                        self.partial().put(progress.incoming.sink, progress.position, room);
                    }
                    request.tickets.clear();
                    return Ok(());
                }
            };
            let length = received.bytes.len() as u64;
            self.counters().fetched_bytes.add(length);
            request.received += length;
            let reached = progress.position + length;
            let Some(next) = self.take(request, progress, received, corrupt).await? else {
                if reached == end {
                    // A body whose end was seen leaves its connection to the next request. The reader does not
                    // wait long for that.
                    let _ = body.next().await;
                }
                return Ok(());
            };
            progress = next;
        }
        // The reader promises all bytes or an error.
        let reason = format!("the blob ended at byte {} instead of {end}", progress.position);
        corrupt.extend(request.tickets.drain(..).map(|ticket| (ticket, reason.clone())));
        Ok(())
    }

    /// Waits for the next bytes, or until the request has to give way.
    async fn next(&self, request: &SpanRequest, body: &mut Body, position: u64) -> Next {
        if request.began_demanded() {
            return body.next().await.into();
        }
        let end =
            request.tickets.front().map_or(0, |ticket| self.table().spans().compressed(ticket.span).end);
        let left = end.saturating_sub(position);
        body.next_unless_disturbed(request.arrival, left, || request.is_demanded()).await
    }

    /// Takes bytes as they come. How far the request is then, unless that was all.
    async fn take(
        &self,
        request: &mut SpanRequest,
        Progress { mut incoming, position, last }: Progress,
        Received { bytes, from }: Received,
        corrupt: &mut Corrupt,
    ) -> Result<Option<Progress>, FetchError> {
        let reached = position + bytes.len() as u64;
        // A chunk may hold the rest of one span, all of others, and the start of yet another. Neighbours may
        // share a byte, so a span's part is found by its own bounds.
        while let Some(span) = request.tickets.front().map(|ticket| ticket.span) {
            let wanted = self.table().spans().compressed(span);
            let (start, end) = (wanted.start.max(position), wanted.end.min(reached));
            if start < end {
                incoming.senders.add(&from);
                incoming.sink.push(&bytes[(start - position) as usize..(end - position) as usize]).await;
            }
            if reached < wanted.end {
                return Ok(Some(Progress { incoming, position: reached, last }));
            }
            if let Some(ticket) = request.tickets.pop_front() {
                self.finish(ticket, incoming, corrupt);
            }
            self.go_on(request, span, last);
            let Some(next) = request.tickets.front() else { return Ok(None) };
            incoming = Incoming::new(self.sink(next.span)?);
        }
        Ok(None)
    }

    /// All bytes of a span have come.
    fn finish(&self, ticket: SpanTicket, Incoming { sink, senders }: Incoming, corrupt: &mut Corrupt) {
        match sink.finish() {
            Ok(verified) => {
                senders.report(Verdict::Verified);
                self.accept(ticket.span, verified);
                ticket.complete(Ok(()));
            }
            Err(complaint) => {
                senders.report(Verdict::Wrong);
                self.counters().corrupt_spans.add(1);
                tracing::warn!(layer = %self.contents().digest(), span = ticket.span, "{complaint}");
                corrupt.push_back((ticket, complaint));
            }
        }
    }

    /// Goes on to the span behind if the request reaches that far, nobody else has it or fetches it, and no other
    /// reader has come.
    fn go_on(&self, request: &mut SpanRequest, span: usize, last: usize) {
        let goes_on =
            !request.began_demanded() || span <= last || !self.link().schedule.is_disturbed(request.arrival);
        if request.tickets.is_empty() && span + 1 < request.end && goes_on {
            request.tickets.extend(self.start_one(span + 1));
            self.partial().forget(span + 1);
        }
    }

    pub(super) fn sink(&self, span: usize) -> Result<SpanSink, FetchError> {
        SpanSink::new(self.contents(), span, self.ztoc())
    }

    /// Takes a verified span into the cache.
    pub(super) fn accept(&self, span: usize, verified: Verified) {
        // A part of it may have come before, by another request.
        self.partial().forget(span);
        self.contents().accept(verified.headers, verified.writer);
        self.counters().fetched_spans.add(1);
    }
}
