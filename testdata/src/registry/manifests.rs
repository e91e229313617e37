//! Manifests and tags.

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use super::reply::Reply;
use super::router::query;
use super::server::Shared;
use super::store::Store;

/// The limit Docker's registry and ECR have.
const MAX_SIZE: usize = 4 << 20;

const MEDIA_TYPES: [&str; 5] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
];

/// GET and HEAD.
pub(super) fn get(shared: &Shared, repo: &str, reference: &str) -> Reply {
    let store = shared.store();
    let Some(manifest) = store.manifest(repo, reference) else {
        return unknown(&store, repo);
    };
    Reply::new(200)
        .header("docker-content-digest", &manifest.digest)
        .body(&manifest.media_type, manifest.body.clone())
}

/// PUT by tag or digest.
pub(super) async fn put(
    shared: &Shared,
    parts: &Parts,
    body: Incoming,
    repo: &str,
    reference: &str,
) -> Reply {
    let Ok(body) = Limited::new(body, MAX_SIZE).collect().await else {
        return Reply::error(413, "SIZE_INVALID", "manifest is too large");
    };
    let body = body.to_bytes();
    let invalid = |message: &str| Reply::error(400, "MANIFEST_INVALID", message);
    let content_type = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !MEDIA_TYPES.contains(&content_type) {
        return invalid(&format!("unsupported media type {content_type:?}"));
    }
    let Ok(json) = serde_json::from_slice::<Value>(&body) else {
        return invalid("not JSON");
    };
    if json["schemaVersion"] != 2 {
        return invalid("schemaVersion is not 2");
    }
    if json.get("mediaType").is_some_and(|t| t.as_str() != Some(content_type)) {
        return invalid("mediaType differs from Content-Type");
    }
    let digest = crate::digest::sha256(&body);
    if reference.contains(':') && reference != digest {
        return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    let mut store = shared.store();
    if shared.config.check_references
        && let Some(missing) = missing_reference(&store, repo, &json)
    {
        return Reply::error(404, "MANIFEST_BLOB_UNKNOWN", &format!("unknown to repository: {missing}"));
    }
    store.put_manifest(repo, Some(reference), content_type, body);
    let path = format!("/v2/{repo}/manifests/{digest}");
    let mut reply =
        Reply::new(201).header("location", &shared.location(&path)).header("docker-content-digest", &digest);
    if let Some(subject) = json["subject"]["digest"].as_str().filter(|_| shared.config.referrers_api) {
        reply.set("oci-subject", subject);
    }
    reply
}

/// The first blob or manifest that a manifest needs and the repository has not.
fn missing_reference(store: &Store, repo: &str, json: &Value) -> Option<String> {
    let layers = ["layers", "blobs"].iter().flat_map(|f| json[f].as_array().into_iter().flatten());
    let blobs = layers.chain(json.get("config"));
    // What has URLs of its own need not be in the registry.
    let blobs = blobs.filter(|d| d.get("urls").is_none()).filter_map(|d| d["digest"].as_str());
    let mut missing = blobs.filter(|d| store.blob(repo, d).is_none());
    if let Some(digest) = missing.next() {
        return Some(digest.into());
    }
    let children = json["manifests"].as_array().into_iter().flatten().filter_map(|d| d["digest"].as_str());
    let mut missing = children.filter(|d| store.manifest(repo, d).is_none());
    missing.next().map(String::from)
}

/// DELETE: a digest takes its tags along, a tag only itself.
pub(super) fn delete(shared: &Shared, repo: &str, reference: &str) -> Reply {
    let mut store = shared.store();
    if store.delete_reference(repo, reference) { Reply::new(202) } else { unknown(&store, repo) }
}

/// The list of tags, with `n` and `last`.
pub(super) fn tags(shared: &Shared, parts: &Parts, repo: &str) -> Reply {
    let Some(mut tags) = shared.store().tags(repo) else {
        return Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    if let Some(last) = query(parts, "last") {
        tags.retain(|t| *t > last);
    }
    let mut link = None;
    if let Some(n) = query(parts, "n").and_then(|n| n.parse::<usize>().ok())
        && n < tags.len()
    {
        tags.truncate(n);
        link = tags.last().map(|last| format!("</v2/{repo}/tags/list?n={n}&last={last}>; rel=\"next\""));
    }
    let reply = Reply::new(200).json(&json!({ "name": repo, "tags": tags }));
    match link {
        Some(link) => reply.header("link", &link),
        None => reply,
    }
}

fn unknown(store: &Store, repo: &str) -> Reply {
    match store.tags(repo) {
        Some(_) => Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        None => Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry"),
    }
}
