//! The referrers API.

use hyper::http::request::Parts;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::reply::Reply;
use super::router::query;
use super::server::Shared;
use super::store::Manifest;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// GET: an index of the manifests whose subject is `digest`, oldest first.
pub(super) fn get(shared: &Shared, parts: &Parts, repo: &str, digest: &str) -> Reply {
    if !shared.config.referrers_api {
        return Reply::new(404).body("text/plain; charset=utf-8", "404 page not found\n");
    }
    if !crate::digest::is_sha256(digest) {
        return Reply::error(400, "DIGEST_INVALID", "provided digest did not parse");
    }
    let filter = query(parts, "artifactType").filter(|t| !t.is_empty());
    let mut descriptors: Vec<Value> = shared.store().referrers(repo, digest).iter().map(descriptor).collect();
    if let Some(wanted) = &filter {
        descriptors.retain(|d| d["artifactType"].as_str() == Some(wanted));
    }
    let start = query(parts, "start").and_then(|s| s.parse().ok()).unwrap_or(0).min(descriptors.len());
    let mut page = descriptors.split_off(start);
    let mut link = None;
    if let Some(size) = shared.config.referrers_page
        && page.len() > size
    {
        page.truncate(size);
        let filter = filter
            .as_ref()
            .map_or(String::new(), |f| format!("&artifactType={}", utf8_percent_encode(f, NON_ALPHANUMERIC)));
        let next = start + size;
        link = Some(format!("</v2/{repo}/referrers/{digest}?start={next}{filter}>; rel=\"next\""));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": page });
    let mut reply = Reply::new(200).body(INDEX, index.to_string());
    if filter.is_some() {
        reply.set("oci-filters-applied", "artifactType");
    }
    if let Some(link) = link {
        reply.set("link", &link);
    }
    reply
}

/// A referrer's descriptor, with the artifact type and annotations taken from the manifest.
fn descriptor(manifest: &Manifest) -> Value {
    let json: Value = serde_json::from_slice(&manifest.body).unwrap_or_default();
    let mut fields = Map::new();
    fields.insert("mediaType".into(), manifest.media_type.clone().into());
    fields.insert("digest".into(), manifest.digest.clone().into());
    fields.insert("size".into(), manifest.body.len().into());
    let artifact_type = json.get("artifactType").or_else(|| json["config"].get("mediaType"));
    if let Some(artifact_type) = artifact_type {
        fields.insert("artifactType".into(), artifact_type.clone());
    }
    if let Some(annotations) = json.get("annotations") {
        fields.insert("annotations".into(), annotations.clone());
    }
    Value::Object(fields)
}
