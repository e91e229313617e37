//! Authentication: challenges, tokens, and who may see them.
//!
//! The first request to a server goes out bare. Its challenge (RFC 9110, 11.6.1; distribution, "Token
//! Authentication") is remembered for the server, and from then on every request carries what the challenge asked
//! for. There is one [`Slot`] per scope: it holds the ready header until it expires or the server refuses it, and
//! its lock makes sure that many concurrent reads renew it only once.

mod challenge;
mod scope;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::credentials::{Credential, CredentialProvider};
use crate::error::{Context, Error, Result};
use crate::hosts::Endpoint;
use crate::retry::RetryPolicy;
use crate::stats::Counters;
use crate::tls::Pools;

use challenge::Scheme;
pub(crate) use scope::{Access, Scope};

/// How long a header for Basic authentication is used before the credentials are asked for again: helpers may be
/// slow, and what they give (ECR: 12 hours) may change.
const BASIC_LIFE: Duration = Duration::from_secs(300);
/// Requests that waited while another one failed to get a token share its failure for this long.
const SHARE_FAILURE: Duration = Duration::from_secs(1);

/// A header to send, and which edition of it: what was refused must be told apart from what came since.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) header: HeaderValue,
    serial: u64,
    expires: Instant,
}

/// Authentication for all servers of a client.
#[derive(Debug)]
pub(crate) struct Authorizer {
    provider: Arc<dyn CredentialProvider>,
    pools: Arc<Pools>,
    counters: Arc<Counters>,
    retry: RetryPolicy,
    request_timeout: Duration,
    servers: Mutex<HashMap<String, Arc<Server>>>,
}

/// What is known about one server.
#[derive(Debug, Default)]
struct Server {
    scheme: Mutex<Option<Scheme>>,
    slots: Mutex<HashMap<Scope, Arc<Slot>>>,
}

/// The current header for one scope. The lock is held while it is renewed.
#[derive(Debug, Default)]
struct Slot(tokio::sync::Mutex<SlotState>);

#[derive(Debug, Default)]
struct SlotState {
    grant: Option<Grant>,
    serial: u64,
    /// What the server's challenge asked for beyond our own scope.
    extra: Scope,
    failed: Option<(Instant, Error)>,
}

impl Authorizer {
    pub(crate) fn new(
        provider: Arc<dyn CredentialProvider>,
        pools: Arc<Pools>,
        counters: Arc<Counters>,
        retry: RetryPolicy,
        request_timeout: Duration,
    ) -> Self {
        Self { provider, pools, counters, retry, request_timeout, servers: Mutex::default() }
    }

    fn server(&self, endpoint: &Endpoint) -> Arc<Server> {
        let key = format!("{}://{}", if endpoint.is_https() { "https" } else { "http" }, endpoint.host());
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    /// The header to send to `endpoint` without being asked; `None` as long as it never asked.
    pub(crate) async fn current(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        context: &Context,
    ) -> Result<Option<Grant>> {
        let server = self.server(endpoint);
        let Some(scheme) = server.scheme() else { return Ok(None) };
        let slot = server.slot(scope);
        let asked_at = Instant::now();
        let mut state = slot.0.lock().await;
        if let Some(grant) = state.grant.as_ref().filter(|grant| grant.expires > Instant::now()) {
            return Ok(Some(grant.clone()));
        }
        self.obtain(endpoint, &scheme, scope, &mut state, asked_at, context).await.map(Some)
    }

    /// The server refused `used` (`None`: the bare request). Returns whether there is now something else to try.
    pub(crate) async fn renew(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        answer: &HeaderMap,
        used: Option<&Grant>,
        context: &Context,
    ) -> Result<bool> {
        let server = self.server(endpoint);
        let challenge = challenge::best(answer);
        if let Some(challenge) = &challenge {
            server.set_scheme(challenge.scheme.clone());
        }
        // ECR answers an expired token with 403 and no challenge: the one it made before still holds.
        let Some(scheme) = server.scheme() else { return Ok(false) };
        let slot = server.slot(scope);
        let asked_at = Instant::now();
        let mut state = slot.0.lock().await;
        if let Some(challenge) = challenge {
            state.extra = challenge.scope;
        }
        let current = state.grant.as_ref().filter(|grant| grant.expires > Instant::now());
        if current.is_some_and(|grant| used.is_none_or(|used| grant.serial != used.serial)) {
            return Ok(true);
        }
        self.obtain(endpoint, &scheme, scope, &mut state, asked_at, context).await.map(|_| true)
    }

    async fn obtain(
        &self,
        endpoint: &Endpoint,
        scheme: &Scheme,
        scope: &Scope,
        state: &mut SlotState,
        asked_at: Instant,
        context: &Context,
    ) -> Result<Grant> {
        if let Some((at, error)) = &state.failed
            && *at >= asked_at
            && at.elapsed() < SHARE_FAILURE
        {
            return Err(error.clone());
        }
        state.grant = None;
        match self.fetch(endpoint, scheme, &scope.union(&state.extra), context).await {
            Ok((header, life)) => {
                state.serial += 1;
                state.failed = None;
                let grant = Grant { header, serial: state.serial, expires: Instant::now() + life };
                state.grant = Some(grant.clone());
                Ok(grant)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn fetch(
        &self,
        endpoint: &Endpoint,
        scheme: &Scheme,
        wanted: &Scope,
        context: &Context,
    ) -> Result<(HeaderValue, Duration)> {
        let credential = self.provider.credential(endpoint.host(), &context.repository).await?;
        if let Some(Credential::RegistryToken(token)) = &credential {
            return Ok((secret_header(&format!("Bearer {token}"), endpoint)?, BASIC_LIFE));
        }
        match scheme {
            Scheme::Basic => {
                let Some(Credential::Password { username, password }) = credential else {
                    let detail = "it asks for a login";
                    return Err(Error::Unauthorized { context: context.clone(), detail: detail.to_owned() });
                };
                Ok((basic_header(&username, &password, endpoint)?, BASIC_LIFE))
            }
            Scheme::Bearer { realm, service } => {
                let request = token::TokenRequest {
                    endpoint,
                    realm,
                    service: service.as_deref(),
                    scope: wanted,
                    credential: credential.as_ref(),
                    context,
                };
                let token = self.token(&request).await?;
                Ok((secret_header(&format!("Bearer {}", token.value), endpoint)?, token.life))
            }
        }
    }
}

impl Server {
    fn scheme(&self) -> Option<Scheme> {
        self.scheme.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_scheme(&self, scheme: Scheme) {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
    }

    fn slot(&self, scope: &Scope) -> Arc<Slot> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(scope.clone()).or_default().clone()
    }
}

fn basic_header(username: &str, password: &str, endpoint: &Endpoint) -> Result<HeaderValue> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {encoded}"), endpoint)
}

fn secret_header(text: &str, endpoint: &Endpoint) -> Result<HeaderValue> {
    let mut header = HeaderValue::try_from(text).map_err(|_| {
        Error::credentials(endpoint.host(), "the token holds characters that HTTP does not allow")
    })?;
    // Kept out of Debug output and of HTTP/2's compression tables.
    header.set_sensitive(true);
    Ok(header)
}
