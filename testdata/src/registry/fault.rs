//! Faults: what goes wrong with chosen requests.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use super::log::{Listener, Request};

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Action {
    /// This status, with these headers and this body, and nothing is looked at.
    Status(u16, Vec<(String, String)>, Bytes),
    /// 307 to this URL.
    Redirect(String),
    /// The connection is closed without an answer.
    DropConnection,
    /// Silence before the first byte, then the true answer.
    Stall(Duration),
    /// A range request gets 200 and the whole blob.
    IgnoreRange,
    /// A range request gets its bytes under a `Content-Range` that begins one byte later.
    WrongContentRange,
    /// A range request gets 206 with `multipart/byteranges` of one part.
    Multipart,
    /// `Content-Length` says the truth, but the connection is closed after so many bytes of the body.
    ShortBody(u64),
    /// Silence after so many bytes of the body, then the rest.
    StallAfter(u64, Duration),
    /// The lowest bit of the body's byte at this offset is flipped. Offsets count from the start of the body that is
    /// sent, not of the blob.
    CorruptByte(u64),
    /// `Docker-Content-Digest` is that of something else.
    BadDigestHeader,
    /// The answer has this header, too.
    Header(&'static str, &'static str),
}

impl Action {
    /// Whether the action replaces or delays the answer, rather than changing it.
    fn is_early(&self) -> bool {
        matches!(self, Self::Status(..) | Self::Redirect(_) | Self::DropConnection | Self::Stall(_))
    }

    /// Whether the action can change an answer with this status and a body of this length. One that cannot is not used up.
    fn applies_to(&self, status: u16, length: u64) -> bool {
        match self {
            Self::IgnoreRange | Self::WrongContentRange | Self::Multipart => status == 206,
            Self::ShortBody(n) | Self::StallAfter(n, _) | Self::CorruptByte(n) => {
                matches!(status, 200 | 206) && *n < length
            }
            Self::BadDigestHeader | Self::Header(..) => (200..300).contains(&status),
            _ => false,
        }
    }
}

/// Which requests a fault is for; all conditions must hold, and no condition is all requests.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// The path contains this.
    pub path: Option<String>,
    /// The method is this.
    pub method: Option<String>,
    /// There is a `Range` header.
    pub range_only: bool,
    /// It came to this listener.
    pub listener: Option<Listener>,
}

impl Match {
    fn holds(&self, request: &Request) -> bool {
        self.path.as_deref().is_none_or(|p| request.path.contains(p))
            && self.method.as_deref().is_none_or(|m| request.method.eq_ignore_ascii_case(m))
            && (!self.range_only || request.header("range").is_some())
            && self.listener.is_none_or(|l| request.listener == l)
    }
}

/// Something that goes wrong.
///
/// Actions that change an answer (rather than replace or delay it) wait for a request whose answer they can change: a
/// [`Action::ShortBody`] is not used up by a redirect or a 401.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which requests.
    pub matches: Match,
    /// How many of them are let through first.
    pub skip: usize,
    /// How many of them are hit after that; `None` is for ever.
    pub times: Option<usize>,
    /// What happens.
    pub action: Action,
}

impl Fault {
    /// For every request, for ever.
    pub fn always(action: Action) -> Self {
        Self { matches: Match::default(), skip: 0, times: None, action }
    }

    /// For the next request only.
    pub fn once(action: Action) -> Self {
        Self::times(1, action)
    }

    /// For the next so many requests.
    pub fn times(times: usize, action: Action) -> Self {
        Self { times: Some(times), ..Self::always(action) }
    }

    /// A plain error status without headers or body, for ever.
    pub fn status(status: u16) -> Self {
        Self::always(Action::Status(status, Vec::new(), Bytes::new()))
    }

    /// Only if the path contains this.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        self.matches.path = Some(part.into());
        self
    }

    /// Only for this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.matches.method = Some(method.into());
        self
    }

    /// Only with a `Range` header.
    #[must_use]
    pub fn range_only(mut self) -> Self {
        self.matches.range_only = true;
        self
    }

    /// Only at this listener.
    #[must_use]
    pub fn at(mut self, listener: Listener) -> Self {
        self.matches.listener = Some(listener);
        self
    }

    /// Lets the first so many matching requests through.
    #[must_use]
    pub fn after(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }
}

/// The faults of a registry.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(super) fn inject(&self, fault: Fault) {
        self.0.lock().unwrap().push(fault);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The action for a request that has just arrived.
    pub(super) fn take_early(&self, request: &Request) -> Option<Action> {
        self.take(request, Action::is_early)
    }

    /// The action for an answer that is about to be sent.
    pub(super) fn take_late(&self, request: &Request, status: u16, length: u64) -> Option<Action> {
        self.take(request, |action| action.applies_to(status, length))
    }

    fn take(&self, request: &Request, fits: impl Fn(&Action) -> bool) -> Option<Action> {
        let mut faults = self.0.lock().unwrap();
        for fault in faults.iter_mut() {
            if fault.times == Some(0) || !fits(&fault.action) || !fault.matches.holds(request) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if let Some(times) = &mut fault.times {
                *times -= 1;
            }
            return Some(fault.action.clone());
        }
        None
    }
}
