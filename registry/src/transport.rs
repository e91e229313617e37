//! One request to one server: authentication, redirects by hand, and the mapping of failures to errors.
//!
//! Retries are a level above (see [`crate::Client`]); what happens here once is what a single try means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, LOCATION};
use reqwest::{Method, StatusCode};
use url::Url;

use crate::auth::{Access, Attempt, Authorizer, Grant, Scope};
use crate::body;
use crate::connections::{Connections, Use};
use crate::error::{Context, Error, Result};
use crate::hosts::Endpoint;
use crate::pace::{Pace, Paces};
use crate::redact;
use crate::reference::Repository;
use crate::retry::retry_after;
use crate::stats::Counters;
use crate::tls::{Pools, Purpose};

/// As many as Go's HTTP client follows, and so the reference.
const MAX_REDIRECTS: usize = 10;

/// Patience with a server that may have stalled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stall {
    /// The least, whatever the server's pace.
    pub(crate) least: Duration,
    /// How often it has just failed.
    pub(crate) failures: u32,
}

/// A request as it is first sent; redirects and authentication add to it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) purpose: Purpose,
    /// It asks for a blob that may come over a connection of the API.
    pub(crate) is_short: bool,
    /// Silence after which the server counts as stalled, and failures so far; `None` for the limits of the server.
    pub(crate) stall: Option<Stall>,
    pub(crate) scope: Scope,
    pub(crate) context: Context,
}

impl Request {
    /// `method` for `<repository>/<tail>` of `endpoint`; `operation` is for messages.
    pub(crate) fn new(
        endpoint: &Endpoint,
        method: Method,
        repository: &Repository,
        tail: &str,
        operation: impl Into<String>,
    ) -> Self {
        let access = if matches!(method, Method::GET | Method::HEAD) { Access::Pull } else { Access::Push };
        Self {
            method,
            url: endpoint.url(repository.name(), tail, &[]),
            headers: HeaderMap::new(),
            body: None,
            purpose: Purpose::Api,
            is_short: false,
            stall: None,
            scope: Scope::of(repository, access),
            context: Context {
                operation: operation.into(),
                host: endpoint.host().to_owned(),
                repository: repository.name().to_owned(),
            },
        }
    }
}

/// An answer with a status that is not transient; the caller judges it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: reqwest::Response,
    /// Where the answer came from, after redirects.
    pub(crate) url: Url,
    pub(crate) context: Context,
    /// How long the server usually takes to say something.
    pub(crate) pace: Arc<Pace>,
    /// What the body comes over.
    pub(crate) connection: Use,
    /// It comes from the registry itself, neither from a mirror nor from storage that a redirect leads to.
    pub(crate) from_registry: bool,
}

impl Reply {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The error that an unwelcome status means, with the server's own words.
    pub(crate) async fn into_error(self, counters: &Counters) -> Error {
        let status = self.status();
        let context = self.context;
        let bytes = body::short(self.response, self.connection, counters, &context).await;
        let detail = body::error_text(&bytes);
        let missing = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
        if missing && self.from_registry && body::says_unknown(&bytes) {
            return Error::NotFound { context, detail, gone: true };
        }
        status_error(status, detail, context)
    }
}

fn status_error(status: StatusCode, detail: String, context: Context) -> Error {
    match status {
        StatusCode::NOT_FOUND => Error::NotFound { context, detail, gone: false },
        StatusCode::UNAUTHORIZED => Error::Unauthorized { context, detail },
        StatusCode::FORBIDDEN => Error::Denied { context, detail },
        _ => Error::Status { context, status: status.as_u16(), detail },
    }
}

/// Sends requests.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) pools: Arc<Pools>,
    pub(crate) authorizer: Authorizer,
    pub(crate) request_timeout: Duration,
    pub(crate) paces: Paces,
    pub(crate) connections: Connections,
    /// Redirects from HTTPS to plain HTTP are followed.
    pub(crate) allow_downgrade: bool,
}

impl Transport {
    /// Sends `request` to `endpoint`: answers challenges, follows redirects.
    ///
    /// # Errors
    /// Failures of the connection, refused credentials, and statuses that are transient (408, 429, 5xx but 501).
    /// Every other status is for the caller.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        counters: &Counters,
    ) -> Result<Reply> {
        let context = &request.context;
        let mut url = request.url.clone();
        let mut attempt = Attempt::default();
        let mut redirects = 0;
        loop {
            let own = endpoint.owns(&url);
            let grant = if own {
                self.authorizer.current(endpoint, &request.scope, context, &attempt).await
            } else {
                None
            };
            let (response, connection) =
                self.transmit(endpoint, request, &url, grant.as_ref(), counters).await?;
            let status = response.status();

            if own && is_refusal(status) {
                let headers = response.headers().clone();
                let said = body::error_text(&body::short(response, connection, counters, context).await);
                let (answer, used) = ((status, &headers), grant.as_ref());
                let again =
                    self.authorizer.refused(endpoint, &request.scope, answer, used, &mut attempt, context);
                if again.await? {
                    tracing::debug!("Received status code: {status}. Renewing the grant and trying again");
                    continue;
                }
                return Err(self.authorizer.explained(status_error(status, said, context.clone())));
            }
            if own && (status.is_success() || status.is_redirection()) {
                self.authorizer.accepted(endpoint, &request.scope, &attempt).await;
            }
            if let Some(next) = self.redirect(endpoint, request, &url, &response)? {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(Error::protocol(context, format!("more than {MAX_REDIRECTS} redirects")));
                }
                counters.add_redirects(1);
                body::short(response, connection, counters, context).await;
                url = next;
                continue;
            }
            if is_transient(status) {
                return Err(transient(response, connection, counters, context).await);
            }
            let pace = self.paces.of(&url);
            let from_registry = own && endpoint.is_origin();
            return Ok(Reply { response, url, context: context.clone(), pace, connection, from_registry });
        }
    }

    /// One exchange over the network.
    async fn transmit(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        url: &Url,
        grant: Option<&Grant>,
        counters: &Counters,
    ) -> Result<(reqwest::Response, Use)> {
        let context = &request.context;
        let purpose = self.purpose(endpoint, request, url);
        let reads_blob = purpose == Purpose::Blob && request.method == Method::GET;
        let mut connection = if reads_blob { self.connections.take(url).await } else { Use::of_any() };
        let client = self.client_for(endpoint, url, purpose, connection.number())?;
        let mut outgoing = client.request(request.method.clone(), url.clone());
        if endpoint.owns(url) {
            outgoing = outgoing.headers(endpoint.headers().clone());
        }
        outgoing = outgoing.headers(request.headers.clone());
        if let Some(grant) = grant {
            outgoing = outgoing.header(AUTHORIZATION, grant.header.clone());
        }
        match &request.body {
            Some(body) if !body.is_empty() => {
                counters.add_sent(body.len() as u64);
                outgoing = outgoing.body(body.clone());
            }
            // An empty body is sent without a length, and some servers insist on one (411).
            _ if !matches!(request.method, Method::GET | Method::HEAD) => {
                outgoing = outgoing.header(CONTENT_LENGTH, 0);
            }
            _ => {}
        }
        if request.purpose == Purpose::Api {
            outgoing = outgoing.timeout(self.request_timeout);
        }
        counters.add_requests(1);
        tracing::trace!(method = %request.method, url = %redact::url(url), "request");
        // The pool connects within `send`, so its time comes on top.
        let mut limit = endpoint.connect_timeout() + endpoint.response_timeout();
        let pace = request.stall.map(|stall| (stall, self.paces.of(url)));
        if let Some((stall, pace)) = &pace {
            limit = pace.patience(stall.least, limit, stall.failures);
        }
        let begun = Instant::now();
        match tokio::time::timeout(limit, outgoing.send()).await {
            Err(_) => {
                self.give_up(url, purpose, begun);
                Err(Error::Timeout { context: context.clone(), waited_for: "the answer", limit })
            }
            Ok(Err(error)) => Err(Error::transport(context, error)),
            Ok(Ok(response)) => {
                counters.note_heard();
                connection.answered();
                if let Some((_, pace)) = pace {
                    pace.note(begun.elapsed());
                }
                tracing::trace!(status = response.status().as_u16(), url = %redact::url(url), "answer");
                Ok((response, connection))
            }
        }
    }

    /// What the connection is for over which a request goes. The API's is open already when a configuration is asked for, because
    /// the manifest came over it; one for blobs would have to be opened first. When there is one of those, it is used.
    fn purpose(&self, endpoint: &Endpoint, request: &Request, url: &Url) -> Purpose {
        if request.is_short && endpoint.owns(url) && !self.connections.has_idle(url) {
            Purpose::Api
        } else {
            request.purpose
        }
    }

    pub(crate) fn client_for(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        purpose: Purpose,
        connection: Option<usize>,
    ) -> Result<reqwest::Client> {
        self.pools.get(url, endpoint.tls(), endpoint.connect_timeout(), purpose, connection)
    }

    /// Gives up the idle connections to the server of `url` that are older than `since`, when a request begun was met by silence.
    pub(crate) fn give_up(&self, url: &Url, purpose: Purpose, since: Instant) {
        self.pools.renew(url, purpose, since);
        if purpose == Purpose::Blob {
            self.connections.forget(url);
        }
    }

    /// Where `response` sends us, if it does.
    fn redirect(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        from: &Url,
        response: &reqwest::Response,
    ) -> Result<Option<Url>> {
        let reading = matches!(request.method, Method::GET | Method::HEAD);
        let follows = match response.status().as_u16() {
            301..=303 => reading,
            307 | 308 => true,
            _ => false,
        };
        if !follows {
            return Ok(None);
        }
        let context = &request.context;
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(location) = location else {
            return Err(Error::protocol(context, "a redirect without a Location that can be read"));
        };
        let next = self.resolve(from, location, context)?;
        if !reading && !endpoint.owns(&next) {
            return Err(Error::protocol(
                context,
                format!("an upload is redirected to another server ({})", redact::url(&next)),
            ));
        }
        Ok(Some(next))
    }

    /// `location` as a URL, seen from `base`.
    pub(crate) fn resolve(&self, base: &Url, location: &str, context: &Context) -> Result<Url> {
        let next = base.join(location).map_err(|_| Error::protocol(context, "Location is not a URL"))?;
        if !matches!(next.scheme(), "http" | "https") || next.host_str().is_none() {
            return Err(Error::protocol(context, "Location is not an HTTP URL"));
        }
        if base.scheme() == "https" && next.scheme() == "http" && !self.allow_downgrade {
            let shown = redact::url(&next);
            return Err(Error::protocol(
                context,
                format!(
                    "redirect from HTTPS to plain HTTP refused ({shown}); allow plain HTTP if that is meant"
                ),
            ));
        }
        Ok(next)
    }
}

/// Whether other credentials may help.
pub(crate) fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429) || (status.is_server_error() && status.as_u16() != 501)
}

pub(crate) async fn transient(
    response: reqwest::Response,
    connection: Use,
    counters: &Counters,
    context: &Context,
) -> Error {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let detail = body::error_text(&body::short(response, connection, counters, context).await);
    let context = context.clone();
    if status == StatusCode::TOO_MANY_REQUESTS {
        Error::RateLimited { context, detail, retry_after }
    } else {
        Error::Server { context, status: status.as_u16(), detail, retry_after }
    }
}
