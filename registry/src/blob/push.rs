//! Uploads: one POST for a session, one PUT with the bytes (distribution-spec, "POST then PUT").

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode};
use url::Url;

use crate::auth::{Access, Attempt, Scope};
use crate::body::ByteStream;
use crate::client::Client;
use crate::connections::Use;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::hosts::Endpoint;
use crate::media_types::OCTET_STREAM;
use crate::reference::Repository;
use crate::retry::Backoff;
use crate::stats::Counters;
use crate::tls::Purpose;
use crate::transport::{Reply, Request, is_refusal, is_transient, transient};

/// How often the progress of an upload is looked at.
const WATCH: Duration = Duration::from_millis(250);

impl Client {
    /// Stores a blob of `size` bytes, unless the registry has it already. Returns whether it was uploaded.
    ///
    /// `source` makes the stream of its bytes; it is called again for each retry, which begins a new session.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the source gives more or fewer bytes than `size`, or the registry's answer cannot be
    /// used; the registry's refusal of wrong bytes as [`Error::Status`]; the source's own errors; those of any
    /// request.
    pub async fn push_blob<S, Fut>(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        source: S,
    ) -> Result<bool>
    where
        S: Fn() -> Fut,
        Fut: Future<Output = Result<ByteStream>>,
    {
        let endpoint = self.push_endpoint(repository)?;
        match self.retrying(self.look_up_policy(), || self.head_blob(&endpoint, repository, digest)).await {
            Ok(true) => return Ok(false),
            Ok(false) => {}
            // Storage whose signed URLs are good for GET only, or a server without HEAD: the upload decides.
            Err(error) => tracing::debug!(%error, "not known whether the blob is there; uploading it"),
        }
        let mut backoff = Backoff::new(self.retry_policy().clone(), self.counters());
        let mut renewed = false;
        loop {
            // First, so that a source that fails leaves no upload behind.
            let bytes = source().await?;
            let (context, location) = match self.start_upload(&endpoint, repository, digest).await {
                Ok(session) => session,
                Err(error) => {
                    backoff.pause(error).await?;
                    continue;
                }
            };
            let Some(location) = location else { return Ok(true) };
            let upload = Upload { client: self, endpoint: &endpoint, repository, context, size };
            match upload.put(location, bytes, renewed).await {
                Ok(Put::Done) => return Ok(true),
                // The token ended between POST and PUT: the next POST has a new one.
                Ok(Put::Renewed) => renewed = true,
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// Makes a blob of the repository `from` one of `repository` too, without moving its bytes (distribution-spec,
    /// "Mounting a blob from another repository"). Returns whether it is there now; if not, it has to be pushed.
    ///
    /// A registry that cannot do it, or does not let this client see `from`, is no error: pushing the bytes may still
    /// succeed, and says best why it does not.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the repositories belong to different registries, and failures of the connection.
    pub async fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<bool> {
        let endpoint = self.push_endpoint(repository)?;
        let operation = format!("mount blob {digest} from {}", from.name());
        let mut request = Request::new(&endpoint, Method::POST, repository, "blobs/uploads/", operation);
        if repository.api_host() != from.api_host() {
            return Err(Error::protocol(&request.context, "a blob is mounted within one registry only"));
        }
        request.url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from.name());
        request.scope = request.scope.union(&Scope::of(from, Access::Pull));
        let (endpoint, request) = (&endpoint, &request);
        let sent = self.retrying(self.retry_policy().clone(), || async move {
            self.transport().send(endpoint, request, self.counters()).await
        });
        let reply = match sent.await {
            Ok(reply) => reply,
            // Also what a token server says that gives no token for both repositories.
            Err(error @ (Error::Unauthorized { .. } | Error::Denied { .. } | Error::Status { .. })) => {
                tracing::debug!(%error, "not mounted");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let mounted = reply.status() == StatusCode::CREATED;
        if let (StatusCode::ACCEPTED, Some(location)) = (reply.status(), reply.header(LOCATION)) {
            // The registry opened an upload instead. Nobody will use it, and it would linger for days.
            if let Ok(url) = self.transport().resolve(&reply.url, location, &reply.context)
                && endpoint.owns(&url)
            {
                let operation = "cancel an upload".to_owned();
                let cancel =
                    Request { url, ..Request::new(endpoint, Method::DELETE, repository, "", operation) };
                let _ = self.transport().send(endpoint, &cancel, self.counters()).await;
            }
        }
        Ok(mounted)
    }

    /// Opens a session. `None` if the registry says that the blob is there after all.
    async fn start_upload(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(Context, Option<Url>)> {
        let operation = format!("push blob {digest}");
        let request = Request::new(endpoint, Method::POST, repository, "blobs/uploads/", operation);
        let reply = self.transport().send(endpoint, &request, self.counters()).await?;
        match reply.status() {
            StatusCode::ACCEPTED => {}
            StatusCode::CREATED => return Ok((reply.context, None)),
            status if status.is_success() => {
                let reason = format!("opening an upload was answered with {}, expected 202", status.as_u16());
                return Err(Error::protocol(&reply.context, reason));
            }
            _ => return Err(reply.into_error(self.counters()).await),
        }
        let Some(location) = reply.header(LOCATION) else {
            return Err(Error::protocol(
                &reply.context,
                "the registry opened an upload but names no Location for it",
            ));
        };
        let mut url = self.transport().resolve(&reply.url, location, &reply.context)?;
        // The Location may bring a query of its own, which must stay as it is.
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        Ok((reply.context, Some(url)))
    }
}

enum Put {
    Done,
    Renewed,
}

struct Upload<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    repository: &'a Repository,
    context: Context,
    size: u64,
}

impl Upload<'_> {
    /// Sends the bytes. `renewed`: an upload was refused before, and this one has fresh credentials.
    async fn put(&self, url: Url, bytes: ByteStream, renewed: bool) -> Result<Put> {
        let (endpoint, context) = (self.endpoint, &self.context);
        let counters = self.client.counters();
        let transport = self.client.transport();
        let scope = Request::new(endpoint, Method::PUT, self.repository, "", "").scope;
        let own = endpoint.owns(&url);
        let mut attempt = Attempt::default();
        let authorizer = &transport.authorizer;
        let grant = if own { authorizer.current(endpoint, &scope, context, &attempt).await } else { None };

        let progress = Arc::new(Progress::new(self.size, counters.clone()));
        let http = transport.client_for(endpoint, &url, Purpose::Blob, None)?;
        let mut outgoing = http.request(Method::PUT, url.clone());
        if own {
            outgoing = outgoing.headers(endpoint.headers().clone());
        }
        outgoing = outgoing
            .header(CONTENT_TYPE, HeaderValue::from_static(OCTET_STREAM))
            // Otherwise the body would go out chunked, which S3-like upload servers refuse.
            .header(CONTENT_LENGTH, self.size);
        if let Some(grant) = &grant {
            outgoing = outgoing.header(AUTHORIZATION, grant.header.clone());
        }
        outgoing = if self.size == 0 {
            outgoing.body(Bytes::new())
        } else {
            outgoing.body(reqwest::Body::wrap_stream(measured(bytes, progress.clone(), context.clone())))
        };
        counters.add_requests(1);
        let sent = tokio::select! {
            sent = outgoing.send() => sent,
            error = progress.watch(self.client, context) => return Err(error),
        };
        let response = match sent {
            Ok(response) => response,
            // The source's own failure ends the request too, and is what the caller should see.
            Err(error) => {
                return Err(progress.take_failure().unwrap_or_else(|| Error::transport(context, error)));
            }
        };
        let status = response.status();
        if is_transient(status) {
            return Err(transient(response, Use::of_any(), counters, context).await);
        }
        if own && is_refusal(status) && !renewed {
            let (answer, used) = ((status, response.headers()), grant.as_ref());
            if authorizer.refused(endpoint, &scope, answer, used, &mut attempt, context).await? {
                return Ok(Put::Renewed);
            }
        }
        let pace = transport.paces.of(&url);
        let connection = Use::of_any();
        let reply = Reply { response, url, context: context.clone(), pace, connection, from_registry: true };
        match status {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => {
                Ok(Put::Done)
            }
            _ => Err(authorizer.explained(reply.into_error(counters).await)),
        }
    }
}

/// How far an upload is, and why its source failed.
struct Progress {
    size: u64,
    sent: AtomicU64,
    finished: AtomicBool,
    failure: Mutex<Option<Error>>,
    counters: Arc<Counters>,
}

impl Progress {
    fn new(size: u64, counters: Arc<Counters>) -> Self {
        Self {
            size,
            sent: AtomicU64::new(0),
            finished: AtomicBool::new(size == 0),
            failure: Mutex::default(),
            counters,
        }
    }

    fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: Error) -> std::io::Error {
        let text = error.to_string();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        std::io::Error::other(text)
    }

    /// Comes back when nothing has moved for too long. The time for an upload as a whole is not limited, but after
    /// the last byte the registry has the time of a normal request to answer.
    async fn watch(&self, client: &Client, context: &Context) -> Error {
        let timeouts = client.timeouts();
        let mut last = (0, Instant::now());
        loop {
            tokio::time::sleep(WATCH).await;
            let sent = self.sent.load(Relaxed);
            if sent != last.0 {
                last = (sent, Instant::now());
            }
            let (waited_for, limit) = if self.finished.load(Relaxed) {
                ("the answer to the upload", timeouts.request)
            } else {
                ("progress of the upload", timeouts.connect + timeouts.idle)
            };
            if last.1.elapsed() > limit {
                return Error::Timeout { context: context.clone(), waited_for, limit };
            }
        }
    }
}

/// `bytes`, counted, and refused if they are not as many as announced.
fn measured(
    bytes: ByteStream,
    progress: Arc<Progress>,
    context: Context,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    futures::stream::unfold(Some((bytes, progress, context)), |state| async move {
        let (mut bytes, progress, context) = state?;
        let wrong = |sent: u64| {
            let reason = format!("the source has {sent} bytes or more, announced were {}", progress.size);
            progress.fail(Error::protocol(&context, reason))
        };
        match bytes.next().await {
            Some(Ok(piece)) => {
                let len = piece.len() as u64;
                let sent = progress.sent.fetch_add(len, Relaxed) + len;
                progress.counters.add_sent(len);
                if sent > progress.size {
                    return Some((Err(wrong(sent)), None));
                }
                if sent == progress.size {
                    progress.finished.store(true, Relaxed);
                }
                Some((Ok(piece), Some((bytes, progress, context))))
            }
            Some(Err(error)) => Some((Err(progress.fail(error)), None)),
            None => {
                let sent = progress.sent.load(Relaxed);
                let short = sent < progress.size;
                short.then(|| {
                    let reason =
                        format!("the source ended after {sent} bytes, announced were {}", progress.size);
                    (Err(progress.fail(Error::protocol(&context, reason))), None)
                })
            }
        }
    })
}
