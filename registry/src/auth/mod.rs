//! Authentication: challenges, tokens, and who may see them.
//!
//! The first request for a repository goes out bare, or with what another repository of the same server was asked for.
//! The challenge (RFC 9110, 11.6.1; distribution, "Token Authentication") is remembered for that repository, and from
//! then on its requests carry what the challenge asked for. There is one [`Slot`] per scope: it holds the ready header
//! until it expires, the server refuses it or the login behind it changes, and its lock makes sure that many concurrent
//! reads renew it only once.
//!
//! Some servers answer a token that they do not accept with another challenge than they give to a bare request. So a
//! refused header leads to one bare request, and what answers that counts. A challenge that cannot be answered leaves
//! what was known in place. See [`Attempt`] for what one request may try.

mod attempt;
mod challenge;
mod login;
mod scope;
mod slots;
mod token;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::credentials::{Credential, CredentialProvider};
use crate::error::{Context, Error, Result};
use crate::hosts::Endpoint;
use crate::retry::RetryPolicy;
use crate::stats::Counters;
use crate::tls::Pools;

pub(crate) use attempt::Attempt;
use challenge::{Offer, Scheme};
use login::Login;
pub(crate) use scope::{Access, Scope};
use slots::{Known, SlotState, Slots};

/// How long a header for Basic authentication is used before the credentials are asked for again: helpers may be
/// slow, and what they give (ECR: 12 hours) may change.
const BASIC_LIFE: Duration = Duration::from_secs(300);
/// Requests that waited while another one failed to get a token share its failure for this long.
const SHARE_FAILURE: Duration = Duration::from_secs(1);

/// The token server of the challenge in these headers that would be taken up, and the scope that would be asked for.
#[cfg(fuzzing)]
pub fn fuzz(headers: &HeaderMap) -> Option<(url::Url, String)> {
    let challenge = Offer::of(headers).bearer?;
    match challenge.scheme {
        Scheme::Bearer { realm, .. } => Some((realm, challenge.scope.to_string())),
        Scheme::Basic => None,
    }
}

/// A header to send, and which edition of it: what was refused must be told apart from what came since.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) header: HeaderValue,
    serial: u64,
    expires: Instant,
    /// It is user name and password, not a token.
    basic: bool,
}

impl Grant {
    fn is_live(&self) -> bool {
        self.expires > Instant::now()
    }
}

/// Authentication for all servers of a client.
#[derive(Debug)]
pub(crate) struct Authorizer {
    provider: Arc<dyn CredentialProvider>,
    pools: Arc<Pools>,
    counters: Arc<Counters>,
    retry: RetryPolicy,
    request_timeout: Duration,
    slots: Slots,
}

/// What a header is wanted for.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    endpoint: &'a Endpoint,
    scope: &'a Scope,
    context: &'a Context,
    /// When the request began to wait for it.
    asked_at: Instant,
}

impl Authorizer {
    pub(crate) fn new(
        provider: Arc<dyn CredentialProvider>,
        pools: Arc<Pools>,
        counters: Arc<Counters>,
        retry: RetryPolicy,
        request_timeout: Duration,
    ) -> Self {
        Self { provider, pools, counters, retry, request_timeout, slots: Slots::default() }
    }

    /// The header to send to `endpoint` without being asked; `None` as long as it never asked.
    ///
    /// That no header can be had is no error: the bare request then shows whether the server wants one, and which.
    pub(crate) async fn current(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        context: &Context,
        attempt: &Attempt,
    ) -> Option<Grant> {
        if attempt.is_bare() {
            return None;
        }
        let slot = self.slots.of(endpoint, scope);
        let wanted = Wanted { endpoint, scope, context, asked_at: Instant::now() };
        let mut state = slot.lock().await;
        self.drop_withdrawn(&wanted, &mut state).await;
        if let Some(grant) = state.grant.as_ref().filter(|grant| grant.is_live()) {
            return Some(grant.clone());
        }
        let scheme = match state.known.clone() {
            Some(Known::Open) => return None,
            Some(Known::Asks(scheme)) => scheme,
            None => self.slots.hint(endpoint)?,
        };
        // Tried once: it may be out of date. Patience is for what a challenge names.
        match self.obtain(&wanted, &scheme, &mut state, &RetryPolicy::none()).await {
            Ok(grant) => Some(grant),
            Err(error) => {
                tracing::debug!(%error, "no header can be had; the request goes out bare");
                if state.known.is_none() {
                    self.slots.forget_hint(endpoint, &scheme);
                }
                None
            }
        }
    }

    /// The server refused the request that carried `used` (`None`: it was bare). Returns whether there is now something
    /// else to try, which [`Self::current`] gives.
    ///
    /// # Errors
    /// Why the server's challenge cannot be answered.
    pub(crate) async fn refused(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        (status, answer): (StatusCode, &HeaderMap),
        used: Option<&Grant>,
        attempt: &mut Attempt,
        context: &Context,
    ) -> Result<bool> {
        let offer = Offer::of(answer);
        let slot = self.slots.of(endpoint, scope);
        let wanted = Wanted { endpoint, scope, context, asked_at: Instant::now() };
        let mut state = slot.lock().await;
        attempt.note_refused(used);
        state.grant = state.grant.take().filter(|grant| grant.is_live() && !attempt.has_refused(grant));
        // Another request was quicker.
        if state.grant.is_some() && attempt.answers() {
            return Ok(true);
        }
        // A token answered by a challenge for a login, or a header that nobody has asked for here.
        let is_odd = used.is_some_and(|used| !used.basic && offer.bearer.is_none() && offer.basic)
            || (used.is_some() && state.known.is_none() && offer.bearer.is_none());
        if is_odd {
            return Ok(attempt.goes_bare());
        }
        if !attempt.answers() {
            return Ok(false);
        }
        let basic = offer.basic.then_some(Scheme::Basic);
        let (scheme, other) = match offer.bearer {
            Some(challenge) => {
                state.extra = challenge.scope;
                (challenge.scheme, basic)
            }
            // ECR answers an expired token with 403 and no challenge: the one it made before still holds.
            None => match basic.or_else(|| state.scheme()) {
                Some(scheme) => (scheme, None),
                None => return Ok(false),
            },
        };
        let mut obtained = self.obtain(&wanted, &scheme, &mut state, &self.retry).await;
        let mut scheme = scheme;
        if let (Err(error), Some(basic)) = (&obtained, other)
            && !error.is_transient()
            && let Ok(grant) = self.obtain(&wanted, &basic, &mut state, &self.retry).await
        {
            (obtained, scheme) = (Ok(grant), basic);
        }
        let grant = obtained?;
        if attempt.has_refused(&grant) {
            // The same login again. Whether the repository needs one at all is left to find out.
            return Ok(status == StatusCode::UNAUTHORIZED && attempt.goes_bare());
        }
        self.slots.set_hint(endpoint, &scheme);
        state.known = Some(Known::Asks(scheme));
        Ok(true)
    }

    /// A request went through. If that was a bare one after a header had been refused, the repository needs none.
    pub(crate) async fn accepted(&self, endpoint: &Endpoint, scope: &Scope, attempt: &Attempt) {
        if attempt.is_bare() {
            let slot = self.slots.of(endpoint, scope);
            let mut state = slot.lock().await;
            state.known = Some(Known::Open);
            state.grant = None;
        }
    }

    /// `error`, with what kept a login from being found if the registry refused.
    pub(crate) fn explained(&self, error: Error) -> Error {
        match error {
            Error::Unauthorized { context, detail } => {
                let detail = self.with_trouble(detail, &context);
                Error::Unauthorized { context, detail }
            }
            Error::Denied { context, detail } => {
                let detail = self.with_trouble(detail, &context);
                Error::Denied { context, detail }
            }
            other => other,
        }
    }

    fn with_trouble(&self, detail: String, context: &Context) -> String {
        match self.provider.trouble(&context.host, &context.repository) {
            Some(trouble) if detail.contains(&trouble) => detail,
            Some(trouble) if detail.is_empty() => trouble,
            Some(trouble) => format!("{detail}; {trouble}"),
            None => detail,
        }
    }

    /// Drops the header if the login that it was made with is no longer what the provider says. The provider is asked
    /// only after something has changed there: it may have to run a program.
    async fn drop_withdrawn(&self, wanted: &Wanted<'_>, state: &mut SlotState) {
        let (host, repository) = (wanted.endpoint.host(), &wanted.context.repository);
        let revision = self.provider.revision(host, repository);
        if state.grant.is_none() || state.revision == revision {
            return;
        }
        let now = self.provider.credential(host, repository).await;
        if now.is_ok_and(|now| Login::of(now.as_ref()) == state.login) {
            state.revision = revision;
        } else {
            tracing::debug!(
                registry = host,
                repository,
                "the login has changed; what was made with it is dropped"
            );
            state.grant = None;
        }
    }

    async fn obtain(
        &self,
        wanted: &Wanted<'_>,
        scheme: &Scheme,
        state: &mut SlotState,
        patience: &RetryPolicy,
    ) -> Result<Grant> {
        if let Some((at, error)) = &state.failed
            && *at >= wanted.asked_at
            && at.elapsed() < SHARE_FAILURE
        {
            return Err(error.clone());
        }
        let scope = wanted.scope.union(&state.extra);
        match self.fetch(wanted, scheme, &scope, state, patience).await {
            Ok((header, life)) => {
                state.serial += 1;
                state.failed = None;
                let basic = *scheme == Scheme::Basic;
                let grant = Grant { header, serial: state.serial, expires: Instant::now() + life, basic };
                state.grant = Some(grant.clone());
                Ok(grant)
            }
            Err(error) => {
                let error = self.explained(error);
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn fetch(
        &self,
        wanted: &Wanted<'_>,
        scheme: &Scheme,
        scope: &Scope,
        state: &mut SlotState,
        patience: &RetryPolicy,
    ) -> Result<(HeaderValue, Duration)> {
        let Wanted { endpoint, context, .. } = *wanted;
        // Before the question: what changes meanwhile is noticed by the next request.
        state.revision = self.provider.revision(endpoint.host(), &context.repository);
        let credential = self.provider.credential(endpoint.host(), &context.repository).await?;
        state.login = Login::of(credential.as_ref());
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
                    scope,
                    credential: credential.as_ref(),
                    context,
                };
                let token = self.token(&request, patience).await?;
                Ok((secret_header(&format!("Bearer {}", token.value), endpoint)?, token.life))
            }
        }
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
