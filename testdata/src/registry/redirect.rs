//! Storage behind the registry: signed URLs that expire.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use hyper::Method;
use hyper::http::request::Parts;

use super::blobs;
use super::builder::{Expired, Redirect};
use super::log::Listener;
use super::reply::Reply;
use super::router::query;
use super::server::Shared;

/// Where blobs are in storage.
pub(super) const PREFIX: &str = "/storage/blobs/";

const SIGNATURE: &str = "X-Amz-Signature";

#[derive(Debug)]
struct Grant {
    digest: String,
    issued: Instant,
    uses: u32,
    revoked: bool,
}

/// The URLs issued so far, by signature.
#[derive(Debug, Default)]
pub(super) struct Signed(Mutex<HashMap<String, Grant>>);

impl Signed {
    /// Makes all of them invalid.
    pub(super) fn expire(&self) {
        self.0.lock().unwrap().values_mut().for_each(|g| g.revoked = true);
    }

    fn issue(&self, digest: &str) -> String {
        let mut grants = self.0.lock().unwrap();
        // Long and without structure, so that a client that cuts or re-encodes the query is found out.
        let name = crate::digest::sha256(format!("{digest} {}", grants.len()).as_bytes());
        let signature = format!("{}+/=", &name[7..47]);
        let grant = Grant { digest: digest.into(), issued: Instant::now(), uses: 0, revoked: false };
        grants.insert(signature.clone(), grant);
        signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    }

    /// Uses a signature: whether it was ever given out for this blob, and whether it is still good.
    fn redeem(&self, signature: &str, digest: &str, redirect: &Redirect) -> Option<bool> {
        let mut grants = self.0.lock().unwrap();
        let grant = grants.get_mut(signature).filter(|g| g.digest == digest)?;
        let late = redirect.expire_after.is_some_and(|limit| grant.issued.elapsed() >= limit);
        let used_up = redirect.expire_after_uses.is_some_and(|limit| grant.uses >= limit);
        grant.uses += 1;
        Some(!grant.revoked && !late && !used_up)
    }
}

/// The redirect to storage.
pub(super) fn issue(shared: &Shared, redirect: &Redirect, digest: &str) -> Reply {
    let host = shared.storage.unwrap_or(shared.main);
    let signature = shared.signed.issue(digest);
    let expires = redirect.expire_after.map_or(1200, |d| d.as_secs());
    Reply::new(redirect.status).header(
        "location",
        &format!("http://{host}{PREFIX}{digest}?X-Amz-Expires={expires}&{SIGNATURE}={signature}"),
    )
}

/// A request to storage.
pub(super) fn serve(shared: &Shared, listener: Listener, parts: &Parts, digest: &str) -> Reply {
    let Some(redirect) = &shared.config.redirect else {
        return error(404, "NoSuchKey", "The specified key does not exist.");
    };
    if listener == Listener::Redirect && parts.headers.contains_key("authorization") {
        return error(400, "InvalidArgument", "Only one auth mechanism allowed");
    }
    // The signature covers the method.
    if parts.method != Method::GET {
        return error(403, "SignatureDoesNotMatch", "The request signature does not match.");
    }
    let signature = query(parts, SIGNATURE).unwrap_or_default();
    match shared.signed.redeem(&signature, digest, redirect) {
        None => error(403, "SignatureDoesNotMatch", "The request signature does not match."),
        Some(false) => match redirect.expired {
            Expired::Forbidden => error(403, "AccessDenied", "Request has expired"),
            Expired::ExpiredToken => error(400, "ExpiredToken", "The provided token has expired."),
            Expired::Unauthorized => error(401, "Unauthorized", "Expired"),
        },
        Some(true) => match shared.store().any_blob(digest) {
            Some(source) => blobs::content(parts, source),
            None => error(404, "NoSuchKey", "The specified key does not exist."),
        },
    }
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::new(status).body(
        "application/xml",
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        ),
    )
}
