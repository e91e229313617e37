//! Headers to send with a request, and how long each is good for.

use std::time::{Duration, Instant};

use base64::Engine;
use reqwest::header::HeaderValue;

use crate::error::{Error, Result};
use crate::hosts::Endpoint;

/// How long a header for Basic authentication is used before the credentials are asked for again: helpers may be
/// slow, and what they give (ECR: 12 hours) may change.
pub(super) const BASIC_LIFE: Duration = Duration::from_secs(300);

/// A header to send, and which edition of it: what was refused must be told apart from what came since.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) header: HeaderValue,
    pub(super) serial: u64,
    pub(super) expires: Instant,
    /// It is user name and password, not a token.
    pub(super) basic: bool,
}

impl Grant {
    pub(super) fn is_live(&self) -> bool {
        self.expires > Instant::now()
    }
}

pub(super) fn basic_header(username: &str, password: &str, endpoint: &Endpoint) -> Result<HeaderValue> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {encoded}"), endpoint)
}

pub(super) fn secret_header(text: &str, endpoint: &Endpoint) -> Result<HeaderValue> {
    let mut header = HeaderValue::try_from(text).map_err(|_| {
        Error::credentials(endpoint.host(), "the token holds characters that HTTP does not allow")
    })?;
    // Kept out of Debug output and of HTTP/2's compression tables.
    header.set_sensitive(true);
    Ok(header)
}
