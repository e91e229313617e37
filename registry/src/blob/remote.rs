//! A blob in a registry, read in ranges: the path that every lazily loaded byte takes.
//!
//! Registries answer blob requests with a redirect to object storage, signed for some minutes. It is resolved by the
//! first real read and the final URL is used from then on, one round trip per read instead of two, until the storage
//! refuses it. Then it is resolved again, once for all readers that wait.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE,
};
use reqwest::{Method, StatusCode};
use url::Url;

use super::open_body::OpenBody;
use super::range;
use crate::client::{Client, context, note_health};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::hosts::Endpoint;
use crate::media_types::essence;
use crate::redact;
use crate::reference::Repository;
use crate::retry::{Backoff, RetryPolicy};
use crate::stats::{Counters, Stats};
use crate::tls::Purpose;
use crate::transport::{Reply, Request, Stall};

/// A blob up to this size is short, in bytes: a configuration, or the zTOC of a small layer.
const SHORT: u64 = 64 << 10;

/// Retries at a remembered URL before it is resolved anew: its host may be what is broken.
const TARGET_RETRIES: u32 = 1;
/// Retries at a mirror before the next server is asked.
const MIRROR_RETRIES: u32 = 1;
/// As good as any number of failures: the server gets all the time that it may have.
const UNHURRIED: u32 = u32::MAX;
/// How often a read looks for a URL that works before it doubts that there is one.
const ROUNDS: usize = 3;

/// A [`BlobReader`](crate::BlobReader) over a registry's blob. Clones share the resolved URL and the counters.
#[derive(Debug, Clone)]
pub struct RegistryBlob {
    pub(super) shared: Arc<Shared>,
    /// For a read that is tried once and no more: how often it has failed before.
    pub(super) once: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    repository: Repository,
    pub(super) digest: Digest,
    pub(super) size: u64,
    max_skip: u64,
    /// Mirrors are left out.
    origin_only: bool,
    pub(super) counters: Arc<Counters>,
    target: Mutex<Option<Arc<Target>>>,
    resolving: tokio::sync::Mutex<()>,
    range_ignored: AtomicBool,
    /// A server has answered with a range.
    range_served: AtomicBool,
}

/// Where the blob was found.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    endpoint: Arc<Endpoint>,
}

impl Client {
    /// A reader of the blob `digest` of `size` bytes. Nothing is sent before the first read.
    pub fn blob_reader(&self, repository: &Repository, digest: Digest, size: u64) -> RegistryBlob {
        self.reader(repository, digest, size, false)
    }

    pub(super) fn reader(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        origin_only: bool,
    ) -> RegistryBlob {
        RegistryBlob {
            shared: Arc::new(Shared {
                client: self.clone(),
                repository: repository.clone(),
                digest,
                size,
                max_skip: u64::MAX,
                origin_only,
                counters: Counters::child_of(self.counters()),
                target: Mutex::default(),
                resolving: tokio::sync::Mutex::default(),
                range_ignored: AtomicBool::new(false),
                range_served: AtomicBool::new(false),
            }),
            once: None,
        }
    }
}

impl RegistryBlob {
    /// The same blob, refusing to skip more than `bytes` when a server sends the whole blob instead of a range:
    /// such reads fail with [`Error::RangeIgnored`]. Without this any prefix is skipped. The result has counters
    /// and a URL of its own.
    #[must_use]
    pub fn with_max_skip(self, bytes: u64) -> Self {
        let old = &self.shared;
        let mut new = old.client.reader(&old.repository, old.digest.clone(), old.size, old.origin_only);
        if let Some(shared) = Arc::get_mut(&mut new.shared) {
            shared.max_skip = bytes;
        }
        new
    }

    /// What happens after failures.
    pub(super) fn backoff(&self) -> Backoff {
        let policy = match self.once {
            Some(_) => RetryPolicy::none(),
            None => self.shared.client.retry_policy().clone(),
        };
        Backoff::new(policy, &self.shared.counters).after(self.once.unwrap_or_default())
    }

    /// Whether a server answered a range request with the whole blob. Each such read costs everything before it as
    /// well: better fetch the blob once.
    pub fn range_ignored(&self) -> bool {
        self.shared.range_ignored.load(Relaxed)
    }

    /// What reads of this blob have cost so far. Token requests count for the client only.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    pub(super) fn context(&self) -> Context {
        context(&self.shared.repository, operation(&self.shared.digest))
    }

    /// The body of an answer that begins at `range.start` and covers as much of `range` as the server likes.
    pub(super) async fn open(&self, range: Range<u64>) -> Result<OpenBody> {
        // What time others take to resolve it counts, too.
        let mut backoff = self.backoff();
        let mut tried: Option<Arc<Target>> = None;
        let mut failed = None;
        for round in 1.. {
            if let Some(target) = self.remembered(tried.as_ref()) {
                match self.read_target(&target, &range).await {
                    Ok(body) => return Ok(body),
                    Err(error @ Error::RangeIgnored { .. }) => return Err(error),
                    Err(error) => {
                        tracing::debug!(url = %redact::url(&target.url), %error, "blob's URL no longer serves; resolving anew");
                        self.forget(&target);
                        tried = Some(target);
                        failed = Some(error);
                    }
                }
            }
            let single = self.shared.resolving.lock().await;
            if self.remembered(tried.as_ref()).is_none() {
                return self.ask(&range, &mut backoff).await;
            }
            drop(single);
            // Others find URLs, and this read fails at all of them.
            match failed.take() {
                Some(error) if round >= ROUNDS && !error.is_transient() => break,
                Some(error) if round >= ROUNDS => return Err(error),
                _ => {}
            }
        }
        let reason = "the storage refuses every URL that the registry gives out";
        Err(Error::protocol(&self.context(), reason))
    }

    pub(super) fn remembered(&self, but_not: Option<&Arc<Target>>) -> Option<Arc<Target>> {
        let target = self.shared.target.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        but_not.is_none_or(|tried| !Arc::ptr_eq(tried, &target)).then_some(target)
    }

    fn forget(&self, refused: &Arc<Target>) {
        let mut target = self.shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        if target.as_ref().is_some_and(|current| Arc::ptr_eq(current, refused)) {
            *target = None;
        }
    }

    async fn read_target(&self, target: &Target, range: &Range<u64>) -> Result<OpenBody> {
        let policy = self.shared.client.retry_policy().at_most(TARGET_RETRIES);
        let mut backoff = Backoff::new(policy, &self.shared.counters);
        loop {
            match self.read_at(&target.endpoint, Some(&target.url), range, backoff.retries()).await {
                Ok((body, _)) => return Ok(body),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// Asks the registry, mirrors first, and remembers where the answer came from. `backoff` is for the registry itself.
    async fn ask(&self, range: &Range<u64>, backoff: &mut Backoff) -> Result<OpenBody> {
        let client = &self.shared.client;
        let mut endpoints = client.pull_endpoints(&self.shared.repository, false)?;
        if self.shared.origin_only {
            endpoints.retain(|endpoint| endpoint.is_origin());
        }
        let count = endpoints.len();
        for (i, endpoint) in endpoints.into_iter().enumerate() {
            let is_last = i + 1 == count;
            let policy = client.retry_policy().at_most(MIRROR_RETRIES);
            let last_retry = policy.max_retries;
            let mut mirror = Backoff::new(policy, &self.shared.counters);
            let backoff = if is_last { &mut *backoff } else { &mut mirror };
            let done = loop {
                // A mirror that first has to ask its upstream must come to an answer once. From then on its pace is known.
                let failures = match backoff.retries() {
                    retries if !is_last && retries >= last_retry => UNHURRIED,
                    retries => retries,
                };
                match self.read_at(&endpoint, None, range, failures).await {
                    Ok(done) => break Ok(done),
                    Err(error) => {
                        if let Err(error) = backoff.pause(error).await {
                            break Err(error);
                        }
                    }
                }
            };
            note_health(&endpoint, &done);
            match done {
                Ok((body, url)) => {
                    let target = Arc::new(Target { url, endpoint });
                    *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
                    return Ok(body);
                }
                Err(error) if is_last => return Err(error),
                Err(error) => tracing::debug!(mirror = endpoint.host(), %error, "mirror passed over"),
            }
        }
        Err(Error::config(format!("registry {}: no server to ask", self.shared.repository.host())))
    }

    async fn read_at(
        &self,
        endpoint: &Endpoint,
        url: Option<&Url>,
        range: &Range<u64>,
        failures: u32,
    ) -> Result<(OpenBody, Url)> {
        let shared = &*self.shared;
        let tail = format!("blobs/{}", shared.digest);
        let mut request =
            Request::new(endpoint, Method::GET, &shared.repository, &tail, operation(&shared.digest));
        request.purpose = Purpose::Blob;
        request.is_short = self.is_short();
        request.stall = Some(Stall { least: shared.client.timeouts().stall, failures });
        request.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let whole = range.start == 0 && range.end == shared.size;
        if !whole {
            let bytes = format!("bytes={}-{}", range.start, range.end - 1);
            let bytes = HeaderValue::try_from(bytes)
                .map_err(|_| Error::protocol(&request.context, "the range is not valid in a header"))?;
            request.headers.insert(RANGE, bytes);
        }
        if let Some(url) = url {
            request.url = url.clone();
        }
        let reply = shared.client.transport().send(endpoint, &request, &shared.counters).await?;
        let url = reply.url.clone();
        Ok((self.body_of(reply, range, whole).await?, url))
    }

    /// Whether a connection of its own would take longer than the blob.
    pub(super) fn is_short(&self) -> bool {
        self.shared.size <= SHORT
    }

    async fn body_of(&self, reply: Reply, asked: &Range<u64>, whole: bool) -> Result<OpenBody> {
        let shared = &*self.shared;
        // Some servers label compressed blobs `gzip` and send them as they are: lengths and digests tell, not the label.
        let encoding =
            reply.header(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        let labelled = encoding.map(|encoding| format!(" (its encoding: {})", redact::message(encoding)));
        let labelled = labelled.unwrap_or_default();
        let protocol = |reason: String| Err(Error::protocol(&reply.context, format!("{reason}{labelled}")));
        let content_type = reply.header(CONTENT_TYPE).map(essence).unwrap_or_default();
        match reply.status() {
            // A login page of a captive portal, or what an ingress shows while there is no registry behind it.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT
                if content_type.eq_ignore_ascii_case("text/html") =>
            {
                protocol("the server answers with a page of HTML".to_owned())
            }
            StatusCode::PARTIAL_CONTENT => {
                if content_type.starts_with("multipart/") {
                    return protocol("the server answers one range with a multipart body".to_owned());
                }
                let Some(text) = reply.header(CONTENT_RANGE) else {
                    return protocol("the server answers a range without Content-Range".to_owned());
                };
                let Some(got) = range::parse(text) else {
                    return protocol(format!("Content-Range `{}` is not valid", redact::message(text)));
                };
                // Shorter than asked is allowed (RFC 9110, 15.3.7); the rest is asked for afterwards.
                let fits = got.range.start == asked.start && got.range.end <= asked.end;
                if !fits || got.total.is_some_and(|total| total != shared.size) {
                    return protocol(format!(
                        "asked for bytes {}-{} of {}, but got Content-Range `{}`",
                        asked.start,
                        asked.end - 1,
                        shared.size,
                        redact::message(text)
                    ));
                }
                shared.range_served.store(true, Relaxed);
                Ok(OpenBody::new(reply, 0, got.range.end))
            }
            StatusCode::OK => {
                let length = reply.header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
                if let Some(length) = length.filter(|length| *length != shared.size) {
                    return protocol(format!("the blob has {length} bytes, expected {}", shared.size));
                }
                if !whole && length.is_none() && encoding.is_some() {
                    return protocol("the server may have changed the content's encoding".to_owned());
                }
                if !whole && length.is_none() && shared.range_served.load(Relaxed) {
                    // A page of something in front of the server, rather than the blob.
                    return protocol("the server answers a range with content of unknown length".to_owned());
                }
                if !whole {
                    self.note_ignored_range(&reply);
                    if asked.start > shared.max_skip {
                        return Err(Error::RangeIgnored { context: reply.context });
                    }
                }
                Ok(OpenBody::new(reply, asked.start, asked.end))
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Error::RangeNotSatisfiable {
                context: reply.context,
                start: asked.start,
                end: asked.end,
                size: shared.size,
            }),
            _ => Err(reply.into_error(&shared.counters).await),
        }
    }

    fn note_ignored_range(&self, reply: &Reply) {
        self.shared.counters.add_ranges_ignored(1);
        if !self.shared.range_ignored.swap(true, Relaxed) {
            tracing::warn!(
                url = %redact::url(&reply.url),
                "the server ignores range requests and sends whole blobs; lazy loading gains nothing here"
            );
        }
    }
}

fn operation(digest: &Digest) -> String {
    format!("read blob {digest}")
}

#[cfg(test)]
mod tests;
