//! Pushing blobs.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::http::request::Parts;

use super::reply::Reply;
use super::router::query;
use super::server::Shared;
use super::store::Source;

impl Shared {
    /// A path of this registry as it stands in `Location`.
    pub(super) fn location(&self, path: &str) -> String {
        if self.config.relative_locations { path.into() } else { format!("http://{}{path}", self.main) }
    }
}

/// The refusal of a request whose body has no length, as the front ends of Google's and GitHub's registries give it.
pub(super) fn without_length(parts: &Parts) -> Option<Reply> {
    let may_have_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    let has_length =
        parts.headers.contains_key(CONTENT_LENGTH) && !parts.headers.contains_key(TRANSFER_ENCODING);
    (may_have_body && !has_length)
        .then(|| Reply::new(411).body("text/html", "<title>Error 411 (Length Required)!!1</title>"))
}

/// POST: a mount from another repository, a whole blob, or the beginning of an upload.
pub(super) async fn begin(shared: &Shared, parts: &Parts, body: Incoming, repo: &str) -> Reply {
    if let Some(digest) = query(parts, "mount") {
        let from = query(parts, "from");
        let mut store = shared.store();
        // Without `from` the registry may look for itself; this one does not, as most.
        if let Some(source) = from.and_then(|from| store.blob(&from, &digest)) {
            store.put_blob(&digest, source, Some(repo));
            return created(shared, repo, &digest);
        }
    }
    if let Some(digest) = query(parts, "digest") {
        return match receive(body).await {
            Ok(data) => store(shared, repo, &digest, data.into()),
            Err(reply) => reply,
        };
    }
    let id = shared.store().begin_upload(repo);
    accepted(shared, repo, &id, 0)
}

/// PATCH: the next piece.
pub(super) async fn patch(shared: &Shared, parts: &Parts, body: Incoming, repo: &str, id: &str) -> Reply {
    if let Some(reply) = refusal(shared, parts, repo, id) {
        return reply;
    }
    let range = parts.headers.get("content-range").and_then(|v| v.to_str().ok());
    let at = shared.store().uploads.get(id).map_or(0, |u| u.data.len());
    if let Some(range) = range {
        let first = range.trim_start_matches("bytes ").split('-').next().and_then(|a| a.parse().ok());
        if first != Some(at) {
            return accepted(shared, repo, id, at).with_status(416);
        }
    }
    let data = match receive(body).await {
        Ok(data) => data,
        Err(reply) => return reply,
    };
    let mut store = shared.store();
    let Some(upload) = store.uploads.get_mut(id) else { return unknown() };
    upload.data.extend_from_slice(&data);
    let length = upload.data.len();
    drop(store);
    accepted(shared, repo, id, length)
}

/// PUT: the last piece, if any, and the digest of it all.
pub(super) async fn finish(shared: &Shared, parts: &Parts, body: Incoming, repo: &str, id: &str) -> Reply {
    if let Some(reply) = refusal(shared, parts, repo, id) {
        return reply;
    }
    let Some(digest) = query(parts, "digest") else {
        return Reply::error(400, "DIGEST_INVALID", "digest parameter missing");
    };
    let data = match receive(body).await {
        Ok(data) => data,
        Err(reply) => return reply,
    };
    let Some(mut upload) = shared.store().uploads.remove(id) else { return unknown() };
    upload.data.extend_from_slice(&data);
    store(shared, repo, &digest, upload.data.into())
}

/// GET: how much has arrived.
pub(super) fn status(shared: &Shared, repo: &str, id: &str) -> Reply {
    let length = shared.store().uploads.get(id).filter(|u| u.repo == repo).map(|u| u.data.len());
    length.map_or_else(unknown, |length| accepted(shared, repo, id, length).with_status(204))
}

/// DELETE: never mind.
pub(super) fn cancel(shared: &Shared, repo: &str, id: &str) -> Reply {
    let mut store = shared.store();
    if store.uploads.get(id).is_none_or(|u| u.repo != repo) {
        return unknown();
    }
    store.uploads.remove(id);
    Reply::new(204)
}

/// The refusal if there is no such upload, or if the client lost the query of the `Location` it was given.
fn refusal(shared: &Shared, parts: &Parts, repo: &str, id: &str) -> Option<Reply> {
    if shared.store().uploads.get(id).is_none_or(|u| u.repo != repo) {
        return Some(unknown());
    }
    if query(parts, "_state").as_deref() != Some(&format!("state of {id}")) {
        return Some(Reply::error(400, "BLOB_UPLOAD_INVALID", "the query of Location was not kept"));
    }
    None
}

/// The whole request body. A client that goes away in the middle leaves nothing behind.
async fn receive(mut body: Incoming) -> Result<Vec<u8>, Reply> {
    let mut data = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Reply::error(400, "BLOB_UPLOAD_INVALID", &e.to_string()))?;
        if let Some(chunk) = frame.data_ref() {
            data.extend_from_slice(chunk);
        }
    }
    Ok(data)
}

fn store(shared: &Shared, repo: &str, digest: &str, data: Bytes) -> Reply {
    if crate::digest::sha256(&data) != digest {
        return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    shared.store().put_blob(digest, Source::Memory(data), Some(repo));
    created(shared, repo, digest)
}

fn created(shared: &Shared, repo: &str, digest: &str) -> Reply {
    Reply::new(201)
        .header("location", &shared.location(&format!("/v2/{repo}/blobs/{digest}")))
        .header("docker-content-digest", digest)
}

fn accepted(shared: &Shared, repo: &str, id: &str, length: usize) -> Reply {
    let path = format!("/v2/{repo}/blobs/uploads/{id}?_state=state%20of%20{id}");
    Reply::new(202)
        .header("location", &shared.location(&path))
        .header("docker-upload-uuid", id)
        // Docker's registry says 0-0 for nothing as well.
        .header("range", &format!("0-{}", length.saturating_sub(1)))
}

fn unknown() -> Reply {
    Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}
