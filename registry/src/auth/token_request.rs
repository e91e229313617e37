//! What a token server is asked, and what it gives.

use std::time::Duration;

use url::Url;

use super::scope::Scope;
use crate::credentials::Credential;
use crate::error::Context;
use crate::hosts::Endpoint;

pub(super) struct Token {
    pub(super) value: String,
    pub(super) life: Duration,
}

pub(super) struct TokenRequest<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) realm: &'a Url,
    pub(super) service: Option<&'a str>,
    pub(super) scope: &'a Scope,
    pub(super) credential: Option<&'a Credential>,
    pub(super) context: &'a Context,
}
