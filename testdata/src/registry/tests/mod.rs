//! The registry as clients see it.

mod auth;
mod faults;
mod link;
mod pull;
mod push;
mod redirect;

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, Response, redirect::Policy};
use serde_json::{Value, json};

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A client that does nothing by itself.
fn client() -> Client {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().redirect(Policy::none()).no_proxy().build().unwrap()
}

fn request(registry: &TestRegistry, method: Method, path: &str) -> RequestBuilder {
    client().request(method, format!("{}{path}", registry.url()))
}

async fn get(registry: &TestRegistry, path: &str) -> Response {
    request(registry, Method::GET, path).send().await.unwrap()
}

async fn ranged(registry: &TestRegistry, path: &str, range: &str) -> Response {
    request(registry, Method::GET, path).header("range", range).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

/// A manifest without layers that refers to `subject`, under an artifact type.
fn referrer(config: &str, subject: &str, artifact_type: &str, n: usize) -> Bytes {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
        "layers": [],
        "subject": { "mediaType": MANIFEST, "digest": subject, "size": 3 },
        "annotations": { "n": n.to_string() },
    })
    .to_string()
    .into()
}

/// 100,000 bytes that differ from their neighbours.
fn sample() -> Bytes {
    (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
