//! SHA-256 digests in OCI form, and the hashing thread of the builder.

use std::fmt;
use std::sync::mpsc::Receiver;
#[cfg(not(fuzzing))]
use std::sync::mpsc::{SyncSender, sync_channel};
#[cfg(not(fuzzing))]
use std::thread::JoinHandle;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::error::BuildError;

/// A SHA-256 digest; displayed as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads `sha256:<64 lower-case hex digits>`; anything else is `None`.
    ///
    /// Upper-case digits are refused because the reference compares digests as text.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"sha256:")?;
        if digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).ok()?;
        Some(Self(digest))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The boundary between two spans: the span before it ends at `end`, the next one starts at `start`.
///
/// `start` is `end` or, where the boundary lies within a byte that both spans share, `end - 1`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) end: u64,
    pub(crate) start: u64,
}

/// What the hashing thread found.
#[derive(Debug)]
pub(crate) struct Digests {
    pub(crate) blob: Sha256Digest,
    pub(crate) spans: Vec<Sha256Digest>,
}

/// A chunk of the layer, with the boundaries in it.
type Job = (Bytes, Vec<Cut>);

#[cfg(not(fuzzing))]
type Jobs = SyncSender<Job>;
#[cfg(fuzzing)]
type Jobs = std::sync::mpsc::Sender<Job>;

/// Hashes the whole layer and each of its spans on a thread of its own, beside the inflating thread.
///
/// Fuzz targets hash at the end, without a thread: an input has to take the same way each time, and a thread for each input
/// would take most of the time.
pub(crate) struct Hasher {
    jobs: Option<Jobs>,
    #[cfg(not(fuzzing))]
    thread: JoinHandle<Digests>,
    #[cfg(fuzzing)]
    queue: Receiver<Job>,
}

impl Hasher {
    /// Chunks that may wait for the hashing thread. It is several times faster than inflating, so
    /// the queue is for jitter only.
    #[cfg(not(fuzzing))]
    const QUEUE: usize = 4;

    #[cfg(not(fuzzing))]
    pub(crate) fn spawn() -> Result<Self, BuildError> {
        let (jobs, queue) = sync_channel(Self::QUEUE);
        let thread = std::thread::Builder::new()
            .name("ztoc-hash".into())
            .spawn(move || run(&queue))
            .map_err(|_| BuildError::Internal("no thread for hashing"))?;
        Ok(Self { jobs: Some(jobs), thread })
    }

    #[cfg(fuzzing)]
    pub(crate) fn spawn() -> Result<Self, BuildError> {
        let (jobs, queue) = std::sync::mpsc::channel();
        Ok(Self { jobs: Some(jobs), queue })
    }

    /// Hashes `chunk`, the next bytes of the layer, in which (or right at the start of which) `cuts` lie.
    pub(crate) fn push(&self, chunk: Bytes, cuts: Vec<Cut>) -> Result<(), BuildError> {
        let gone = BuildError::Internal("the hashing thread ended early");
        match &self.jobs {
            Some(jobs) => jobs.send((chunk, cuts)).map_err(|_| gone),
            None => Err(gone),
        }
    }

    pub(crate) fn finish(mut self) -> Result<Digests, BuildError> {
        self.jobs = None;
        #[cfg(not(fuzzing))]
        return self.thread.join().map_err(|_| BuildError::Internal("the hashing thread ended early"));
        #[cfg(fuzzing)]
        Ok(run(&self.queue))
    }
}

/// Bytes that both hashers take in turn, so that the second finds them in the cache of the processor.
const SLICE: usize = 32 * 1024;

/// The digests of the layer and of the span that is passing by.
struct State {
    blob: Sha256,
    span: Option<Sha256>,
    spans: Vec<Sha256Digest>,
}

impl State {
    fn update(&mut self, bytes: &[u8]) {
        for slice in bytes.chunks(SLICE) {
            self.blob.update(slice);
            if let Some(span) = &mut self.span {
                span.update(slice);
            }
        }
    }

    fn end_span(&mut self) {
        self.spans.extend(self.span.take().map(|span| Sha256Digest(span.finalize().into())));
    }
}

fn run(queue: &Receiver<Job>) -> Digests {
    let mut state = State { blob: Sha256::new(), span: None, spans: Vec::new() };
    let mut position = 0u64;
    // A span may begin with the last byte of the chunk before.
    let mut last_byte = 0u8;
    for (chunk, cuts) in queue {
        let mut hashed = 0usize;
        for cut in cuts {
            let end = usize::try_from(cut.end - position).unwrap_or(chunk.len());
            state.update(&chunk[hashed..end]);
            state.end_span();
            let mut next = Sha256::new();
            if cut.start < cut.end {
                next.update([if end == 0 { last_byte } else { chunk[end - 1] }]);
            }
            state.span = Some(next);
            hashed = end;
        }
        state.update(&chunk[hashed..]);
        position += chunk.len() as u64;
        last_byte = chunk.last().copied().unwrap_or(last_byte);
    }
    state.end_span();
    Digests { blob: Sha256Digest(state.blob.finalize().into()), spans: state.spans }
}
