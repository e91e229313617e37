//! The client: what it is made of, and how an operation goes through the servers of a registry.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Authorizer;
use crate::certificates;
use crate::config::{ClientConfig, Timeouts};
use crate::connections::Connections;
use crate::error::{Context, Error, Result};
use crate::hosts::{Endpoint, Hosts};
use crate::pace::Paces;
use crate::reference::Repository;
use crate::retry::{Backoff, RetryPolicy};
use crate::stats::{Counters, Stats};
use crate::tls::Pools;
use crate::transport::Transport;

/// Retries of a mirror before the next server is asked: the next one is likely to be faster than patience.
const MIRROR_RETRIES: u32 = 1;

/// Retries of a HEAD request.
const LOOK_UP_RETRIES: u32 = 1;

/// A client of OCI registries. Cheap to clone; clones share connections, tokens and counters.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    hosts: Hosts,
    retry: RetryPolicy,
    read_retry: RetryPolicy,
    timeouts: Timeouts,
    counters: Arc<Counters>,
}

impl Client {
    /// A client with this configuration.
    ///
    /// # Errors
    /// [`Error::Config`] for a mistake in any `hosts.toml` (with file and line), or a certificate that cannot be
    /// read: better now than in the middle of a pull. Nothing is sent over the network yet.
    pub fn new(config: ClientConfig) -> Result<Self> {
        certificates::validate(&config.tls)?;
        let pools = Arc::new(Pools::new(&config));
        let counters = Arc::new(Counters::default());
        let authorizer = Authorizer::new(
            config.credentials.clone(),
            pools.clone(),
            counters.clone(),
            config.retry.clone(),
            config.timeouts.request,
        );
        let transport = Transport {
            pools,
            authorizer,
            request_timeout: config.timeouts.request,
            paces: Paces::default(),
            connections: Connections::default(),
            allow_downgrade: config.plain_http,
        };
        let hosts = Hosts::new(&config)?;
        Ok(Self {
            inner: Arc::new(Inner {
                transport,
                hosts,
                retry: config.retry,
                read_retry: config.read_retry,
                timeouts: config.timeouts,
                counters,
            }),
        })
    }

    /// What all operations of this client and its clones have sent and received so far.
    pub fn stats(&self) -> Stats {
        self.inner.counters.snapshot()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.inner.counters
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.inner.timeouts
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        &self.inner.retry
    }

    /// For requests that decide nothing: another one is going to be sent whatever they say.
    pub(crate) fn look_up_policy(&self) -> RetryPolicy {
        self.inner.retry.at_most(LOOK_UP_RETRIES)
    }

    /// How long reads of blobs are tried that somebody depends on: [`ClientConfig::read_retry`].
    pub fn read_retry_policy(&self) -> &RetryPolicy {
        &self.inner.read_retry
    }

    /// Whether any server has said anything within the last so much time.
    pub fn heard_within(&self, time: Duration) -> bool {
        self.inner.counters.heard_within(time)
    }

    /// The servers to ask for content of `repository`, in order.
    pub(crate) fn pull_endpoints(&self, repository: &Repository, by_tag: bool) -> Result<Vec<Arc<Endpoint>>> {
        let endpoints = self.inner.hosts.route(repository.host())?.for_pull(by_tag);
        if endpoints.is_empty() {
            let need = if by_tag { "resolve" } else { "pull" };
            return Err(Error::config(format!(
                "registry {}: no server has the capability `{need}`; correct its hosts.toml",
                repository.host()
            )));
        }
        Ok(endpoints)
    }

    /// The server for uploads to `repository`.
    pub(crate) fn push_endpoint(&self, repository: &Repository) -> Result<Arc<Endpoint>> {
        self.inner.hosts.route(repository.host())?.for_push().ok_or_else(|| {
            Error::config(format!(
                "registry {}: no server has the capability `push`; correct its hosts.toml",
                repository.host()
            ))
        })
    }

    /// Does `operation` at one server after the other until one succeeds; each with retries. The error is that of
    /// the last, which is the registry itself.
    pub(crate) async fn over_mirrors<T, F, Fut>(&self, endpoints: &[Arc<Endpoint>], operation: F) -> Result<T>
    where
        F: Fn(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut last = None;
        for (i, endpoint) in endpoints.iter().enumerate() {
            let is_last = i + 1 == endpoints.len();
            let policy =
                if is_last { self.inner.retry.clone() } else { self.inner.retry.at_most(MIRROR_RETRIES) };
            let done = self.retrying(policy, || operation(endpoint.clone())).await;
            note_health(endpoint, &done);
            match done {
                Ok(value) => return Ok(value),
                Err(error) if !is_last => {
                    tracing::debug!(mirror = endpoint.host(), %error, "mirror passed over");
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::config("no server to ask")))
    }

    /// Does `operation` until it succeeds, fails for good, or the retries are used up.
    pub(crate) async fn retrying<T, F, Fut>(&self, policy: RetryPolicy, operation: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut backoff = Backoff::new(policy, &self.inner.counters);
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }
}

/// Remembers for a while that a mirror could not be reached.
pub(crate) fn note_health<T>(endpoint: &Endpoint, result: &Result<T>) {
    match result {
        Err(Error::Transport { .. } | Error::Timeout { .. } | Error::Tls { .. }) => endpoint.mark_down(),
        _ => endpoint.mark_up(),
    }
}

/// The subject of messages about `repository` as a whole, before a server is chosen.
pub(crate) fn context(repository: &Repository, operation: impl Into<String>) -> Context {
    Context {
        operation: operation.into(),
        host: repository.host().to_owned(),
        repository: repository.name().to_owned(),
    }
}
