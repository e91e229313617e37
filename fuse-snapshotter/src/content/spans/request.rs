//! What one request for neighbouring spans is to bring.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::content::flights::{FetchTicket, Fetched};
use crate::content::link::priority::{Priority, RangePriorities, SharedPriority};
use crate::content::spans::table::LayerTable;

/// The duty to fetch a span; see [`FetchTicket`].
#[derive(Debug)]
pub(crate) struct SpanTicket {
    pub(crate) span: usize,
    pub(crate) ticket: FetchTicket,
}

impl SpanTicket {
    fn is_demanded(&self) -> bool {
        self.ticket.is_demanded()
    }

    fn priority(&self) -> Arc<SharedPriority> {
        self.ticket.priority()
    }

    /// See [`FetchTicket::complete`].
    pub(crate) fn complete(self, result: Fetched) {
        self.ticket.complete(result);
    }
}

/// Neighbouring spans to fetch with one request.
pub(crate) struct SpanRequest {
    /// What is left, in ascending order.
    pub(super) tickets: VecDeque<SpanTicket>,
    /// Of what no reader waits for.
    priority: Priority,
    /// A reader waited for it when it began. Its connection is worth more than the time that the rest of a span takes:
    /// another one would begin slowly, as all do.
    began_demanded: bool,
    /// What nobody waits for: behind the tickets, up to this span.
    pub(super) end: usize,
    /// The last reader that had come when it began. It leaves the link to a later one.
    pub(super) arrival: u64,
    /// Compressed bytes that have come.
    pub(super) received: u64,
    /// Who waits until it has been asked for.
    pub(super) asked: Option<oneshot::Sender<()>>,
}

impl SpanRequest {
    /// The spans of these tickets, which follow each other. The request gives way to nobody.
    pub(crate) fn new(tickets: Vec<SpanTicket>, priority: Priority) -> Self {
        let began_demanded = tickets.iter().any(SpanTicket::is_demanded);
        let tickets = tickets.into();
        Self { tickets, priority, began_demanded, end: 0, arrival: u64::MAX, received: 0, asked: None }
    }

    /// The same, and what follows up to a span, as long as nobody else has it or fetches it. It gives way to readers
    /// that come after the `arrival`-th; if it began for a reader, only what follows does.
    pub(crate) fn going_on_to(self, end: usize, arrival: u64) -> Self {
        Self { end, arrival, ..self }
    }

    /// The same; the result ends when it has been asked for, or cannot be.
    pub(crate) fn announced(mut self) -> (Self, oneshot::Receiver<()>) {
        let (sender, asked) = oneshot::channel();
        self.asked = Some(sender);
        (self, asked)
    }

    /// Whether a reader waited for it when it began.
    pub(super) fn began_demanded(&self) -> bool {
        self.began_demanded
    }

    /// Whether a reader waits for any of it.
    pub(super) fn is_demanded(&self) -> bool {
        self.tickets.iter().any(SpanTicket::is_demanded)
    }

    /// Whether wrong bytes are asked for again and again. Speculative ones may never be needed.
    pub(super) fn insists(&self) -> bool {
        self.priority != Priority::Speculative
    }

    /// How urgent its bytes are.
    pub(super) fn priorities(&self, table: &LayerTable) -> RangePriorities {
        let end_of = |ticket: &SpanTicket| table.spans().compressed(ticket.span).end;
        let parts = self.tickets.iter().map(|ticket| (end_of(ticket), ticket.priority())).collect();
        RangePriorities { least: self.priority, parts }
    }
}

/// Splits tickets, in ascending order, where spans do not follow each other.
pub(crate) fn neighbours(tickets: Vec<SpanTicket>) -> Vec<Vec<SpanTicket>> {
    let mut runs: Vec<Vec<SpanTicket>> = Vec::new();
    for ticket in tickets {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.span + 1 == ticket.span) => run.push(ticket),
            _ => runs.push(vec![ticket]),
        }
    }
    runs
}
