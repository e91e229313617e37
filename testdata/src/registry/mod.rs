//! An OCI registry inside the test process.
//!
//! [`TestRegistry::builder`] describes it, [`Builder::start`] runs it on the caller's tokio runtime and
//! [`Builder::start_blocking`] on threads of its own. It listens on a free port of 127.0.0.1, speaks plain HTTP/1.1 with
//! keep-alive, and stops when dropped.
//!
//! It is as strict as the strictest: what has no `Content-Length` is refused with 411, and the query of an upload's
//! `Location` has to come back. Everything else a real registry does to a client can be switched on: token
//! authentication with short-lived tokens, redirects to a storage host that signs its URLs and refuses foreign
//! credentials, a slow link, and [`Fault`]s for single requests. Every request is recorded
//! ([`TestRegistry::requests`]), so that a test can say what a client may cost.
//!
//! ```
//! # let rt = tokio::runtime::Runtime::new().unwrap();
//! # rt.block_on(async {
//! use testdata::registry::{Action, Fault, TestRegistry};
//!
//! let registry = TestRegistry::builder().start().await;
//! let digest = registry.put_blob("layer bytes");
//! registry.inject(Fault::once(Action::Status(503, vec![("Retry-After".into(), "1".into())], "busy".into())).path(&digest));
//! // … point a client at registry.host() …
//! assert_eq!(registry.requests().len(), 0);
//! # });
//! ```

mod auth;
mod blobs;
mod body;
mod builder;
mod fault;
mod link;
mod log;
mod manifests;
mod redirect;
mod referrers;
mod reply;
mod router;
mod server;
mod store;
mod uploads;

#[cfg(test)]
mod tests;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

pub use self::builder::{Auth, Builder, Expired, Redirect, TokenIn};
pub use self::fault::{Action, Fault, Match};
pub use self::log::{Listener, Request, longest_chain};
pub use self::server::Outage;

use self::server::{Servers, Shared};
use self::store::Source;

/// A running registry. Dropping it stops it and closes its connections.
#[derive(Debug)]
pub struct TestRegistry {
    shared: Arc<Shared>,
    servers: Servers,
}

impl TestRegistry {
    /// Describes a registry; everything is off to begin with, except the referrers API.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The address of the registry proper.
    pub fn addr(&self) -> SocketAddr {
        self.shared.main
    }

    /// `127.0.0.1:PORT`, as it stands in image references.
    pub fn host(&self) -> String {
        self.shared.main.to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.main)
    }

    /// `127.0.0.1:PORT` of the host that blob requests are redirected to, if it is another one.
    pub fn redirect_host(&self) -> Option<String> {
        self.shared.storage.map(|addr| addr.to_string())
    }

    /// Every request since the start or the last [`clear_requests`](Self::clear_requests), in order of arrival.
    /// A request that was never answered has status 0.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.requests()
    }

    /// Forgets the requests so far and sets [`bytes_sent`](Self::bytes_sent) to 0.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// Bytes of response bodies handed to the network since the start or the last
    /// [`clear_requests`](Self::clear_requests), both listeners together.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.log.bytes_sent()
    }

    /// Connections accepted since the start, both listeners together.
    pub fn connections(&self) -> u64 {
        self.shared.log.connections()
    }

    /// Requests to the token endpoint since the last [`clear_requests`](Self::clear_requests).
    pub fn token_requests(&self) -> usize {
        self.requests().iter().filter(|r| r.path == "/token").count()
    }

    /// Sets the time before the first byte of each response, from the next request on.
    pub fn set_latency(&self, latency: Duration) {
        *self.shared.latency.lock().unwrap() = latency;
    }

    /// Adds a blob, visible in every repository, and returns its digest.
    pub fn put_blob(&self, data: impl Into<Bytes>) -> String {
        let data = data.into();
        let digest = crate::digest::sha256(&data);
        self.shared.store().put_blob(&digest, Source::Memory(data), None);
        digest
    }

    /// Adds a file as a blob without loading it, and returns its digest. The file must not change afterwards.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn put_blob_file(&self, path: impl AsRef<Path>) -> String {
        let (digest, _) = crate::digest::sha256_file(path.as_ref()).expect("blob file");
        self.put_blob_file_as(path, &digest);
        digest
    }

    /// As [`put_blob_file`](Self::put_blob_file), but trusts the caller for the digest: no pass over the file.
    pub fn put_blob_file_as(&self, path: impl AsRef<Path>, digest: &str) {
        let source = Source::open(path.as_ref()).expect("blob file");
        self.shared.store().put_blob(digest, source, None);
    }

    /// Adds a manifest or an index under `reference` (a tag or its own digest) and returns its digest. Nothing is
    /// checked: a test may well want a broken manifest here.
    pub fn put_manifest(
        &self,
        repo: &str,
        reference: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> String {
        self.shared.store().put_manifest(repo, Some(reference), media_type, body.into())
    }

    /// Loads all images of an OCI layout directory, indexes within indexes included, and tags its only (or first) root
    /// as `tag`. Returns the root's digest. Blobs stay in their files.
    ///
    /// # Panics
    /// If the layout is not one.
    pub fn put_layout(&self, repo: &str, tag: &str, dir: impl AsRef<Path>) -> String {
        let dir = dir.as_ref();
        let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).expect("index.json"))
            .expect("index.json is JSON");
        let roots = index["manifests"].as_array().expect("manifests in index.json");
        let mut first = None;
        for root in roots {
            let digest = self.put_layout_tree(repo, dir, root);
            if first.is_none() {
                self.shared.store().tag(repo, tag, &digest);
                first = Some(digest);
            }
        }
        first.expect("a root in index.json")
    }

    /// Loads one descriptor of a layout with all it refers to.
    fn put_layout_tree(&self, repo: &str, dir: &Path, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().expect("digest");
        let media_type = descriptor["mediaType"].as_str().expect("mediaType");
        let path = |digest: &str| dir.join("blobs").join(digest.replace(':', "/"));
        let body = fs::read(path(digest)).expect("manifest blob");
        let json: Value = serde_json::from_slice(&body).expect("manifest is JSON");
        for child in json["manifests"].as_array().into_iter().flatten() {
            self.put_layout_tree(repo, dir, child);
        }
        let layers = json["layers"].as_array().into_iter().flatten();
        for blob in layers.chain(json.get("config")) {
            let digest = blob["digest"].as_str().expect("digest");
            // A layout may leave out what nobody is meant to read, such as foreign layers.
            if path(digest).exists() {
                self.put_blob_file_as(path(digest), digest);
            }
        }
        self.shared.store().put_manifest(repo, None, media_type, body.into())
    }

    /// The bytes of a blob.
    pub fn blob(&self, digest: &str) -> Option<Bytes> {
        let source = self.shared.store().any_blob(digest)?;
        Some(source.read_now(0, source.len()).expect("blob file"))
    }

    /// Media type and bytes of a manifest, by tag or digest.
    pub fn manifest(&self, repo: &str, reference: &str) -> Option<(String, Bytes)> {
        let store = self.shared.store();
        store.manifest(repo, reference).map(|m| (m.media_type.clone(), m.body.clone()))
    }

    /// Takes a blob away from every repository.
    pub fn remove_blob(&self, digest: &str) -> bool {
        self.shared.store().remove_blob(digest)
    }

    /// Takes a manifest away, with the tags that name it.
    pub fn remove_manifest(&self, repo: &str, reference: &str) -> bool {
        self.shared.store().remove_manifest(repo, reference)
    }

    /// The tags of a repository, sorted.
    pub fn tags(&self, repo: &str) -> Vec<String> {
        self.shared.store().tags(repo).unwrap_or_default()
    }

    /// Adds a fault; faults are tried in the order in which they were injected, and the first that matches acts.
    pub fn inject(&self, fault: Fault) {
        self.shared.faults.inject(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// `true`: connections are accepted and closed at once, and the open ones are closed; `false`: back to normal.
    pub fn set_down(&self, down: bool) {
        self.set_outage(if down { Outage::CloseAtOnce } else { Outage::None });
    }

    /// Sets how the registry (both listeners) is out of order. New connections see it at once.
    pub fn set_outage(&self, outage: Outage) {
        self.servers.set_outage(outage);
    }

    /// Makes every token issued so far invalid.
    pub fn expire_tokens(&self) {
        self.shared.tokens.expire();
    }

    /// Makes every redirect URL issued so far invalid.
    pub fn expire_redirects(&self) {
        self.shared.signed.expire();
    }
}
