//! From a request to an answer.

use std::sync::Arc;

use hyper::Method;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::log::Listener;
use super::reply::Reply;
use super::server::Shared;
use super::{auth, blobs, manifests, redirect, referrers, uploads};

/// A request in the terms of the distribution specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Ping,
    Token,
    Storage { digest: String },
    Manifest { repo: String, reference: String },
    Blob { repo: String, digest: String },
    Uploads { repo: String },
    Upload { repo: String, id: String },
    Referrers { repo: String, digest: String },
    Tags { repo: String },
}

impl Route {
    fn parse(path: &str) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        if path == "/token" {
            return Some(Self::Token);
        }
        if let Some(digest) = path.strip_prefix(redirect::PREFIX) {
            return Some(Self::Storage { digest: digest.into() });
        }
        let rest = path.strip_prefix("/v2")?;
        if rest.is_empty() || rest == "/" {
            return Some(Self::Ping);
        }
        let rest = rest.strip_prefix('/')?;
        // A repository's name may have any number of components, so the end of the path decides.
        if let Some((repo, id)) = rest.rsplit_once("/blobs/uploads/") {
            let repo = repo.into();
            return Some(if id.is_empty() {
                Self::Uploads { repo }
            } else {
                Self::Upload { repo, id: id.into() }
            });
        }
        if let Some(repo) = rest.strip_suffix("/blobs/uploads") {
            return Some(Self::Uploads { repo: repo.into() });
        }
        if let Some(repo) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags { repo: repo.into() });
        }
        let (head, last) = rest.rsplit_once('/')?;
        let (repo, kind) = head.rsplit_once('/')?;
        let (repo, last) = (repo.to_owned(), last.to_owned());
        match kind {
            "manifests" => Some(Self::Manifest { repo, reference: last }),
            "blobs" => Some(Self::Blob { repo, digest: last }),
            "referrers" => Some(Self::Referrers { repo, digest: last }),
            _ => None,
        }
    }

    /// The repository it is about.
    pub(super) fn repo(&self) -> Option<&str> {
        match self {
            Self::Ping | Self::Token | Self::Storage { .. } => None,
            Self::Manifest { repo, .. }
            | Self::Blob { repo, .. }
            | Self::Uploads { repo }
            | Self::Upload { repo, .. }
            | Self::Referrers { repo, .. }
            | Self::Tags { repo } => Some(repo),
        }
    }
}

/// Answers a request.
pub(super) async fn answer(shared: &Arc<Shared>, listener: Listener, parts: &Parts, body: Incoming) -> Reply {
    if let Some(refusal) = uploads::without_length(parts) {
        return refusal;
    }
    let Some(route) = Route::parse(parts.uri.path()) else {
        return Reply::new(404).body("text/plain; charset=utf-8", "404 page not found\n");
    };
    if let Route::Storage { digest } = &route {
        return redirect::serve(shared, listener, parts, digest);
    }
    if listener == Listener::Redirect {
        return Reply::new(404).body("application/xml", "<Error><Code>NoSuchKey</Code></Error>");
    }
    if route == Route::Token {
        return auth::token(shared, parts, body).await;
    }
    if let Some(challenge) = auth::refusal(shared, parts, &route) {
        return challenge;
    }
    dispatch(shared, parts, body, &route).await
}

async fn dispatch(shared: &Arc<Shared>, parts: &Parts, body: Incoming, route: &Route) -> Reply {
    let method = &parts.method;
    let is_read = method == Method::GET || method == Method::HEAD;
    match route {
        Route::Ping if is_read => Reply::new(200)
            .header("docker-distribution-api-version", "registry/2.0")
            .json(&serde_json::json!({})),
        Route::Manifest { repo, reference } => match *method {
            Method::GET | Method::HEAD => manifests::get(shared, repo, reference),
            Method::PUT => manifests::put(shared, parts, body, repo, reference).await,
            Method::DELETE => manifests::delete(shared, repo, reference),
            _ => not_allowed(),
        },
        Route::Blob { repo, digest } => match *method {
            Method::GET | Method::HEAD => blobs::get(shared, parts, repo, digest),
            Method::DELETE => blobs::delete(shared, repo, digest),
            _ => not_allowed(),
        },
        Route::Uploads { repo } if method == Method::POST => uploads::begin(shared, parts, body, repo).await,
        Route::Upload { repo, id } => match *method {
            Method::PATCH => uploads::patch(shared, parts, body, repo, id).await,
            Method::PUT => uploads::finish(shared, parts, body, repo, id).await,
            Method::GET => uploads::status(shared, repo, id),
            Method::DELETE => uploads::cancel(shared, repo, id),
            _ => not_allowed(),
        },
        Route::Referrers { repo, digest } if is_read => referrers::get(shared, parts, repo, digest),
        Route::Tags { repo } if is_read => manifests::tags(shared, parts, repo),
        _ => not_allowed(),
    }
}

fn not_allowed() -> Reply {
    Reply::error(405, "UNSUPPORTED", "the operation is unsupported")
}

/// The values of a query or a form, decoded.
pub(super) fn form(text: &str) -> Vec<(String, String)> {
    let decode = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// One value of the request's query.
pub(super) fn query(parts: &Parts, name: &str) -> Option<String> {
    form(parts.uri.query().unwrap_or_default()).into_iter().find(|(n, _)| n == name).map(|(_, v)| v)
}
