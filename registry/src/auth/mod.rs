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
mod authorizer;
mod challenge;
mod grant;
mod login;
mod scope;
mod slots;
mod token;
mod token_request;

pub(crate) use attempt::Attempt;
pub(crate) use authorizer::Authorizer;
pub(crate) use grant::Grant;
pub(crate) use scope::{Access, Scope};

/// The token server of the challenge in these headers that would be taken up, and the scope that would be asked for.
#[cfg(fuzzing)]
pub fn fuzz(headers: &reqwest::header::HeaderMap) -> Option<(url::Url, String)> {
    let challenge = challenge::Offer::of(headers).bearer?;
    match challenge.scheme {
        challenge::Scheme::Bearer { realm, .. } => Some((realm, challenge.scope.to_string())),
        challenge::Scheme::Basic => None,
    }
}
