//! A layer's blob, in all the repositories that images which share the layer come from, read with patience.
//!
//! A read asks one repository after the other, the one that worked last first. Whoever refuses, breaks off or stays
//! silent costs the time of one try. Only when all have failed does waiting begin: they are asked again and again, also
//! for a new login, until one answers or [`ClientConfig::read_retry`](registry::ClientConfig::read_retry) ends. A
//! container cannot ask again for a file that it was refused, so it is refused only what every registry itself says
//! that it does not have. What breaks off in the middle is continued where it broke, by whoever has it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use registry::{Backoff, BlobReader, ByteStream, Context, Digest, Error, Repository, Result, RetryPolicy};

use crate::base::lock::lock;

/// Most repositories that are remembered for one layer. Each is worth a try, but not all of a hundred.
pub(crate) const MAX_SOURCES: usize = 8;

/// How long one of several repositories is waited for, at first, before the next is asked.
const TURN: Duration = Duration::from_secs(10);

/// Waits that are shorter than this are the daily life of registries, and not worth a line in the log.
const QUIET: Duration = Duration::from_secs(1);

/// After how long more sources are sought again.
const SEEK_AGAIN: Duration = Duration::from_secs(10);

/// After this much progress a connection that breaks is the first one again.
const PROGRESS: u64 = 1 << 20;

/// Finds more sources of a layer than are known.
#[async_trait]
pub(crate) trait Seek: Send + Sync {
    /// Adds repositories that have the layer, as far as they can be found. Whether there is another layer with the same
    /// content, which is up to whoever reads.
    async fn seek(&self, layer: &Digest) -> bool;
}

/// A blob that several repositories have. A repository may be deleted, or its credentials expire, while an image from
/// another one still uses the layer. Clones are the same.
#[derive(Clone)]
pub(crate) struct Sources(Arc<Inner>);

struct Inner {
    digest: Digest,
    size: u64,
    patience: RetryPolicy,
    seek: Option<Arc<dyn Seek>>,
    sought: Mutex<Option<Instant>>,
    /// Which worked last stands first, the newest last.
    list: RwLock<Vec<RepositoryBlob>>,
    waits: Mutex<Waits>,
}

/// One repository.
#[derive(Clone)]
struct RepositoryBlob {
    name: Arc<str>,
    reader: Arc<dyn BlobReader>,
}

/// Reads that have been refused by all.
#[derive(Default)]
struct Waits {
    count: usize,
    since: Option<Instant>,
    /// The log says so.
    logged: bool,
    /// What for, for people.
    reason: String,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("digest", &self.0.digest).finish_non_exhaustive()
    }
}

/// What a repository is called among sources: whatever the tag, it is asked once.
pub(crate) fn name_of(repository: &Repository) -> String {
    format!("{}/{}", repository.host(), repository.name())
}

impl Sources {
    /// The blob in the repository that it was opened in.
    pub(super) fn new(name: &str, reader: Arc<dyn BlobReader>, patience: RetryPolicy) -> Self {
        let (digest, size) = (reader.digest().clone(), reader.size());
        let list = RwLock::new(vec![RepositoryBlob { name: name.into(), reader }]);
        let (sought, waits) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { digest, size, patience, seek: None, sought, list, waits }))
    }

    /// The same blob, more sources of which are sought when those that are known fail.
    pub(super) fn seeking(mut self, seek: Option<Arc<dyn Seek>>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.seek = seek;
        }
        self
    }

    /// Adds a repository behind the others, unless it is known. When there are too many, it takes the place of the last
    /// one: what works stands in front of that.
    pub(super) fn add(&self, name: &str, reader: impl FnOnce() -> Arc<dyn BlobReader>) {
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.iter().any(|known| *known.name == *name) {
            return;
        }
        list.truncate(MAX_SOURCES - 1);
        list.push(RepositoryBlob { name: name.into(), reader: reader() });
        tracing::debug!(layer = %self.0.digest, repository = name, "another repository has the layer");
    }

    /// Why reads wait now, if they do.
    pub(crate) fn waiting(&self) -> Option<String> {
        let waits = lock(&self.0.waits);
        let since = waits.since.filter(|_| waits.count > 0)?;
        Some(format!("{} (since {} s)", waits.reason, since.elapsed().as_secs()))
    }
}

impl Inner {
    fn list(&self) -> Vec<RepositoryBlob> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn prefer(&self, name: &str) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = list.iter().position(|known| *known.name == *name) {
            list[..=position].rotate_right(1);
        }
    }

    /// Looks for more sources, but not all the time.
    async fn seek(&self) -> Sought {
        let Some(seek) = &self.seek else { return Sought::Nothing };
        {
            let mut sought = lock(&self.sought);
            if sought.is_some_and(|when| when.elapsed() < SEEK_AGAIN) {
                return Sought::Nothing;
            }
            *sought = Some(Instant::now());
        }
        let before = self.list().len();
        match seek.seek(&self.digest).await {
            _ if self.list().len() > before => Sought::Repository,
            true => Sought::OtherLayer,
            false => Sought::Nothing,
        }
    }

    fn context(&self) -> Context {
        let operation = format!("read blob {}", self.digest);
        Context { operation, host: String::new(), repository: String::new() }
    }

    /// Asks each repository once. The error is one that may pass, if there is such a one.
    async fn ask_all(&self, range: &Range<u64>, failures: u32) -> Result<ByteStream> {
        let list = self.list();
        let mut failed: Option<Error> = None;
        for (position, RepositoryBlob { name, reader }) in list.iter().enumerate() {
            let attempt = reader.attempt(range.clone(), failures);
            // Later all get the time that they may have: nobody is quicker.
            let answer = if list.len() > 1 && failures == 0 {
                tokio::time::timeout(TURN, attempt).await.unwrap_or_else(|_| {
                    Err(Error::Timeout { context: self.context(), waited_for: "the answer", limit: TURN })
                })
            } else {
                attempt.await
            };
            let error = match answer {
                Ok(stream) => {
                    if position > 0 {
                        self.prefer(name);
                    }
                    return Ok(stream);
                }
                Err(error) => error,
            };
            if list.len() > 1 {
                tracing::debug!(layer = %self.digest, repository = %name, %error, "cannot read the layer there");
            }
            // That one has the blob, as a whole.
            let is_worth_more = |than: &Error| match than {
                Error::RangeIgnored { .. } => false,
                than => matches!(error, Error::RangeIgnored { .. }) || (than.is_final() && !error.is_final()),
            };
            if failed.as_ref().is_none_or(is_worth_more) {
                failed = Some(error);
            }
        }
        Err(failed.unwrap_or_else(|| Error::Protocol {
            context: self.context(),
            reason: "there is no repository to ask".to_owned(),
        }))
    }
}

/// What was found beside the sources that are known.
enum Sought {
    Nothing,
    Repository,
    /// A layer with the same content, which cannot be read in its place here.
    OtherLayer,
}

/// What has to happen so that a read can go on.
fn remedy(error: &Error) -> &'static str {
    match error {
        Error::Unauthorized { .. } | Error::Denied { .. } | Error::Credentials { .. } => {
            "a login that the registry accepts"
        }
        Error::RateLimited { .. } | Error::Server { .. } => "the registry to recover",
        Error::Transport { .. } | Error::Timeout { .. } | Error::Tls { .. } => "the registry to be reachable",
        _ => "an answer of the registry itself",
    }
}

/// A read that waits, as others are told.
struct Wait {
    inner: Arc<Inner>,
    since: Instant,
}

impl Wait {
    fn begin(inner: &Arc<Inner>) -> Self {
        lock(&inner.waits).count += 1;
        Self { inner: Arc::clone(inner), since: Instant::now() }
    }

    /// Says why, once for all that wait at the same time unless something else is waited for by now.
    fn note(&self, error: &Error, left: Duration) {
        let mut waits = lock(&self.inner.waits);
        let since = *waits.since.get_or_insert(self.since);
        let remedy = remedy(error);
        let known = waits.reason.starts_with(&format!("waiting for {remedy}:"));
        waits.reason = format!("waiting for {remedy}: {error}");
        waits.logged &= known;
        if !waits.logged && since.elapsed() >= QUIET {
            waits.logged = true;
            let (layer, seconds) = (&self.inner.digest, left.as_secs());
            tracing::warn!(%layer, %error, seconds, "cannot read the layer; waiting for {remedy}");
        }
    }

    /// It is over, with or without success.
    fn end(self, failed: Option<&Error>) {
        let (layer, seconds) = (&self.inner.digest, self.since.elapsed().as_secs());
        let mut waits = lock(&self.inner.waits);
        if let Some(error) = failed {
            let remedy = remedy(error);
            tracing::error!(%layer, %error, seconds, "gave up waiting for {remedy}; the read fails");
        } else if std::mem::take(&mut waits.logged) {
            tracing::info!(%layer, seconds, "the layer can be read again");
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waits = lock(&self.inner.waits);
        waits.count -= 1;
        if waits.count == 0 {
            *waits = Waits::default();
        }
    }
}

/// One read.
struct Read {
    inner: Arc<Inner>,
    /// What is still to come.
    range: Range<u64>,
    backoff: Backoff,
    /// Where it broke last.
    broke_at: u64,
    open: Option<ByteStream>,
}

impl Read {
    /// Asks until somebody answers, or patience ends.
    async fn ask(&mut self) -> Result<ByteStream> {
        let mut wait: Option<Wait> = None;
        let failed = loop {
            let error = match self.inner.ask_all(&self.range, self.backoff.retries()).await {
                Ok(body) => {
                    if let Some(wait) = wait {
                        wait.end(None);
                    }
                    return Ok(body);
                }
                Err(error @ Error::RangeIgnored { .. }) => return Err(error),
                Err(error) => error,
            };
            if !error.is_final() {
                wait.get_or_insert_with(|| Wait::begin(&self.inner)).note(&error, self.backoff.left());
            }
            // Before anybody is refused, and when waiting begins to last.
            if wait.as_ref().is_none_or(|wait| wait.since.elapsed() >= QUIET) {
                match self.inner.seek().await {
                    Sought::Repository => continue,
                    Sought::OtherLayer => return Err(error),
                    Sought::Nothing => {}
                }
            }
            if let Err(error) = self.backoff.pause(error).await {
                break error;
            }
        };
        if let Some(wait) = wait {
            wait.end(Some(&failed));
        }
        Err(failed)
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(body) = &mut self.open else {
                self.open = Some(self.ask().await?);
                continue;
            };
            match body.next().await {
                Some(Ok(piece)) => {
                    self.range.start += piece.len() as u64;
                    return Ok(Some(piece));
                }
                None => return Ok(None),
                // There is too much of it.
                Some(Err(error)) if self.range.is_empty() => return Err(error),
                Some(Err(error)) => {
                    tracing::debug!(layer = %self.inner.digest, position = self.range.start, %error, "going on elsewhere");
                    self.open = None;
                    if self.range.start - self.broke_at >= PROGRESS {
                        self.backoff.reset();
                    }
                    self.broke_at = self.range.start;
                    // Others may have what is gone there.
                    if !error.is_final() {
                        self.backoff.pause(error).await?;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl BlobReader for Sources {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn digest(&self) -> &Digest {
        &self.0.digest
    }

    async fn read_range(&self, range: Range<u64>) -> Result<ByteStream> {
        let (start, end, size) = (range.start, range.end, self.0.size);
        if start > end || end > size {
            return Err(Error::RangeNotSatisfiable { context: self.0.context(), start, end, size });
        }
        let backoff = self.0.patience.begin();
        let mut read = Read { inner: Arc::clone(&self.0), range, backoff, broke_at: start, open: None };
        // What concerns the whole read is said at once.
        read.open = Some(read.ask().await?);
        let pieces = futures::stream::unfold(Some(read), |read| async move {
            let mut read = read?;
            match read.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(read))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(pieces.boxed())
    }

    fn round_trip(&self) -> Option<Duration> {
        self.0.list.read().unwrap_or_else(PoisonError::into_inner).first()?.reader.round_trip()
    }
}

#[cfg(test)]
mod tests;
