//! Asking a token server (distribution, "Token Authentication" and "OAuth2 Token Authentication").

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::authorizer::Authorizer;
use super::token_request::{Token, TokenRequest};
use crate::body;
use crate::credentials::Credential;
use crate::error::{Error, Result};
use crate::retry::{Backoff, RetryPolicy};
use crate::tls::Purpose;
use crate::{redact, retry};

/// Named as the reference's, which some token servers know.
const CLIENT_ID: &str = "containerd-client";
/// Tokens are a few kilobytes at most.
const MAX_ANSWER: usize = 256 << 10;
/// What a server means that says nothing (distribution, "expires_in").
const DEFAULT_LIFE: u64 = 60;
/// A token is renewed this much before its end, or a tenth of its life if that is shorter.
const MARGIN: Duration = Duration::from_secs(30);
/// Nobody needs a token for longer; also keeps clock arithmetic in range.
const MAX_LIFE: u64 = 12 * 3600;
const MAX_REDIRECTS: usize = 3;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<f64>,
}

enum Reply {
    Token(Token),
    Refused(StatusCode, String),
}

impl Authorizer {
    pub(super) async fn token(&self, request: &TokenRequest<'_>, patience: &RetryPolicy) -> Result<Token> {
        let mut backoff = Backoff::new(patience.clone(), &self.counters);
        loop {
            match self.try_token(request).await {
                Ok(token) => return Ok(token),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    async fn try_token(&self, request: &TokenRequest<'_>) -> Result<Token> {
        let mut credential = request.credential;
        if credential.is_some() && request.endpoint.is_https() && request.realm.scheme() != "https" {
            tracing::warn!(
                registry = request.endpoint.host(),
                realm = %redact::url(request.realm),
                "the registry names an authorization server without TLS: asking it without a login"
            );
            credential = None;
        }
        let reply = match credential {
            None => self.get_token(request, None).await?,
            Some(Credential::IdentityToken(token)) => {
                self.post_token(request, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await?
            }
            Some(Credential::Password { username, password }) => {
                let form = [("grant_type", "password"), ("username", username), ("password", password)];
                match self.post_token(request, &form).await? {
                    // Some servers know only GET: GCR says 404, Artifactory 401, ACR 400, others 405.
                    Reply::Refused(status, _) if matches!(status.as_u16(), 400 | 401 | 404 | 405) => {
                        self.get_token(request, Some((username, password))).await?
                    }
                    reply => reply,
                }
            }
            Some(Credential::RegistryToken(token)) => {
                Reply::Token(Token { value: token.clone(), life: super::grant::BASIC_LIFE })
            }
        };
        let context = request.context.clone();
        match reply {
            Reply::Token(token) => Ok(token),
            Reply::Refused(status, detail) => {
                let detail = without_secrets(&detail, request.credential);
                let detail = format!("its token server answered {}: {detail}", status.as_u16());
                Err(match status {
                    StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST => {
                        Error::Unauthorized { context, detail }
                    }
                    StatusCode::FORBIDDEN => Error::Denied { context, detail },
                    _ => Error::Status { context, status: status.as_u16(), detail },
                })
            }
        }
    }

    async fn post_token(&self, request: &TokenRequest<'_>, form: &[(&str, &str)]) -> Result<Reply> {
        let body = {
            let mut body = url::form_urlencoded::Serializer::new(String::new());
            body.extend_pairs(form).append_pair("client_id", CLIENT_ID);
            body.append_pair("scope", &request.scope.to_string());
            if let Some(service) = request.service {
                body.append_pair("service", service);
            }
            body.finish()
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        // Redirects are not followed: the password is in the body.
        let response = self.exchange(request, Method::POST, request.realm, headers, Some(body)).await?;
        self.read_token(request, response).await
    }

    async fn get_token(&self, request: &TokenRequest<'_>, basic: Option<(&str, &str)>) -> Result<Reply> {
        let mut url = request.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = request.service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &request.scope.to_string());
        }
        let secret = match basic {
            Some((username, password)) => {
                Some(super::grant::basic_header(username, password, request.endpoint)?)
            }
            None => None,
        };
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = HeaderMap::new();
            if let Some(secret) = secret.as_ref().filter(|_| url.origin() == request.realm.origin()) {
                headers.insert(AUTHORIZATION, secret.clone());
            }
            let response = self.exchange(request, Method::GET, &url, headers, None).await?;
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            match location.and_then(|l| url.join(l).ok()) {
                Some(next) if response.status().is_redirection() => url = next,
                _ => return self.read_token(request, response).await,
            }
        }
        Err(Error::protocol(request.context, "the token server redirects without end"))
    }

    async fn exchange(
        &self,
        request: &TokenRequest<'_>,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        form: Option<String>,
    ) -> Result<reqwest::Response> {
        let endpoint = request.endpoint;
        let client = self.pools.get(url, endpoint.tls(), endpoint.connect_timeout(), Purpose::Api, None)?;
        let mut outgoing = client.request(method, url.clone()).headers(headers).timeout(self.request_timeout);
        if let Some(form) = form {
            self.counters.add_sent(form.len() as u64);
            outgoing = outgoing.body(form);
        }
        self.counters.add_requests(1);
        self.counters.add_token_requests(1);
        let limit = endpoint.response_timeout() + endpoint.connect_timeout();
        match tokio::time::timeout(limit, outgoing.send()).await {
            Err(_) => Err(Error::Timeout {
                context: request.context.clone(),
                waited_for: "the answer of the token server",
                limit,
            }),
            Ok(sent) => sent.map_err(|error| Error::transport(request.context, error)),
        }
    }

    async fn read_token(&self, request: &TokenRequest<'_>, response: reqwest::Response) -> Result<Reply> {
        let context = request.context;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && status.as_u16() != 501) {
            let retry_after = retry::retry_after(response.headers());
            let detail = "from its token server".to_owned();
            let context = context.clone();
            return Err(match status {
                StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { context, detail, retry_after },
                _ => Error::Server { context, status: status.as_u16(), detail, retry_after },
            });
        }
        let bytes =
            body::collect(response, MAX_ANSWER, request.endpoint.response_timeout(), &self.counters, context)
                .await?;
        if !status.is_success() {
            return Ok(Reply::Refused(status, body::error_text(&bytes)));
        }
        // serde's message may quote the token.
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| Error::protocol(context, "the token server's answer is not the JSON of a token"))?;
        let value = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if value.is_empty() {
            return Err(Error::protocol(context, "the token server's answer holds no token"));
        }
        Ok(Reply::Token(Token { value, life: life(answer.expires_in) }))
    }
}

/// `detail` without what the credential consists of: some servers quote what they were given.
fn without_secrets(detail: &str, credential: Option<&Credential>) -> String {
    let secret = match credential {
        Some(Credential::Password { password, .. }) => password,
        Some(Credential::IdentityToken(token) | Credential::RegistryToken(token)) => token,
        None => return detail.to_owned(),
    };
    if secret.is_empty() { detail.to_owned() } else { detail.replace(secret.as_str(), "…") }
}

/// How long to use a token that says `expires_in` seconds.
fn life(expires_in: Option<f64>) -> Duration {
    let seconds = expires_in.filter(|s| *s >= 1.0).map_or(DEFAULT_LIFE, |s| (s as u64).min(MAX_LIFE));
    let life = Duration::from_secs(seconds);
    life - MARGIN.min(life / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_has_a_margin_and_bounds() {
        assert_eq!(life(Some(3600.0)), Duration::from_secs(3570));
        assert_eq!(life(Some(10.0)), Duration::from_secs(9));
        for none in [None, Some(0.0), Some(-5.0), Some(f64::NAN)] {
            assert_eq!(life(none), Duration::from_secs(54));
        }
        assert_eq!(life(Some(1e300)), Duration::from_secs(MAX_LIFE - 30));
    }
}
