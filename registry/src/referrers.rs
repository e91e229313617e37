//! Referrers: manifests that name another as their `subject` (distribution-spec, "Listing Referrers").
//!
//! Registries without the referrers API list them in an index under the tag `sha256-<hex>` instead. Readers ask for
//! both at once, because finding out one after the other costs a round trip on the way to the first byte. From a server
//! that has shown which of them it has, they ask for that one first.

mod select;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LINK};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use url::Url;

use crate::body;
use crate::client::{Client, context};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hosts::Endpoint;
use crate::manifests::{MAX_MANIFEST_SIZE, PushedManifest, found};
use crate::media_types::{OCI_INDEX, essence};
use crate::reference::{Repository, TagOrDigest};
use crate::transport::{Reply, Request};

/// Pages of one list. With hundreds of referrers a page, more is a server that goes round in circles.
const MAX_PAGES: usize = 64;
/// All pages together, in bytes.
const MAX_LIST_SIZE: u64 = 4 * MAX_MANIFEST_SIZE;
/// Tries to get an entry into the fallback index when others write it too.
const WRITE_TRIES: usize = 8;
/// The least and the longest time given to other writers before our entry is looked for again.
const SETTLE: Range<Duration> = Duration::from_millis(20)..Duration::from_secs(2);

impl Client {
    /// The manifests that refer to `subject`, only those of `artifact_type` if one is given, in the registry's
    /// order. Empty if there are none.
    ///
    /// # Errors
    /// Those of any request. That a registry lacks the API is none.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let endpoints = self.pull_endpoints(repository, false)?;
        let done = self.over_mirrors(&endpoints, |endpoint| {
            self.referrers_from(endpoint, repository, subject, artifact_type)
        });
        // `None`: the server knows neither way. A mirror that does not is passed over like one without the blob.
        Ok(found(done.await)?.unwrap_or_default())
    }

    async fn referrers_from(
        &self,
        endpoint: Arc<Endpoint>,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let (list, filtered) = self.list_from(&endpoint, repository, subject, artifact_type).await?;
        let entries = select::readable(list);
        match artifact_type.filter(|_| !filtered) {
            Some(wanted) => self.of_type(&endpoint, repository, entries, wanted).await,
            None => Ok(entries),
        }
    }

    /// The list of one server, and whether it is filtered already.
    async fn list_from(
        &self,
        endpoint: &Arc<Endpoint>,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<(Vec<Value>, bool)> {
        let fallback = self.fallback_list(endpoint.clone(), repository, subject);
        let api = self.api_list(endpoint, repository, subject, artifact_type);
        tokio::pin!(fallback);
        tokio::pin!(api);
        // What the server has shown before saves a request, where it leads to a list.
        match endpoint.lists_referrers() {
            Some(true) => {
                if let Ok(Some(listed)) = (&mut api).await {
                    return Ok(listed);
                }
                api.set(self.api_list(endpoint, repository, subject, artifact_type));
            }
            Some(false) => {
                if let Ok(Some(list)) = (&mut fallback).await {
                    return Ok((list, false));
                }
                fallback.set(self.fallback_list(endpoint.clone(), repository, subject));
            }
            None => {}
        }
        // Whichever comes first: a list from the API settles it, without waiting for the other.
        let mut early = None;
        let from_api = tokio::select! {
            from_api = &mut api => from_api,
            from_tag = &mut fallback => {
                early = Some(from_tag);
                api.await
            }
        };
        match from_api {
            Ok(Some(listed)) => {
                endpoint.note_lists_referrers(true);
                Ok(listed)
            }
            from_api => {
                let from_tag = match early {
                    Some(from_tag) => from_tag,
                    None => fallback.await,
                };
                match (from_tag, from_api) {
                    (Ok(Some(list)), from_api) => {
                        // Nobody writes the tag where there is an API; a 404 alone could be about the repository.
                        if from_api.is_ok() {
                            endpoint.note_lists_referrers(false);
                        }
                        Ok((list, false))
                    }
                    // The API failed and the tag does not exist: the list may exist, so the failure counts.
                    (Ok(None), Err(error)) => Err(error),
                    (Ok(None), Ok(_)) if endpoint.is_origin() => Ok((Vec::new(), true)),
                    (Ok(None), Ok(_)) => {
                        let context = context(repository, format!("list referrers of {subject}"));
                        Err(Error::NotFound { context, detail: String::new(), gone: false })
                    }
                    (Err(error), _) => Err(error),
                }
            }
        }
    }

    /// The list of the referrers API, and whether it is filtered; `None` if the server has no such API.
    async fn api_list(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<(Vec<Value>, bool)>> {
        let tail = format!("referrers/{subject}");
        let operation = format!("list referrers of {subject}");
        let mut request = Request::new(endpoint, Method::GET, repository, &tail, operation);
        if let Some(artifact_type) = artifact_type {
            request.url = endpoint.url(repository.name(), &tail, &[("artifactType", artifact_type)]);
        }
        request.headers.insert(ACCEPT, HeaderValue::from_static(OCI_INDEX));
        let mut list = Vec::new();
        let mut filtered = true;
        let mut size = 0;
        for page in 0..MAX_PAGES {
            let reply = self.transport().send(endpoint, &request, self.counters()).await?;
            let is_index = reply.header(CONTENT_TYPE).is_some_and(|t| essence(t) == OCI_INDEX);
            if reply.status() != StatusCode::OK || !is_index {
                if page == 0 && lacks_api(reply.status()) {
                    // Read to the end, so that the connection can be used again.
                    body::short(reply.response, reply.connection, self.counters(), &reply.context).await;
                    return Ok(None);
                }
                if reply.status() == StatusCode::OK {
                    return Err(Error::protocol(
                        &reply.context,
                        "a page of the list of referrers is not an OCI index",
                    ));
                }
                return Err(reply.into_error(self.counters()).await);
            }
            filtered &= reply
                .header("oci-filters-applied")
                .is_some_and(|filters| filters.split(',').any(|f| f.trim() == "artifactType"));
            let next = next_page(endpoint, &reply);
            let bytes = self.read_index(reply).await?;
            size += bytes.len() as u64;
            match entries(&bytes) {
                Some(entries) => list.extend(entries),
                None if page == 0 => return Ok(None),
                None => {
                    return Err(Error::protocol(
                        &request.context,
                        "a page of the list of referrers is not an OCI index",
                    ));
                }
            }
            match next {
                Some(_) if size > MAX_LIST_SIZE => {
                    return Err(Error::TooLarge {
                        context: request.context,
                        limit: MAX_LIST_SIZE,
                        size: Some(size),
                    });
                }
                Some(next) => request.url = next,
                None => return Ok(Some((list, filtered && artifact_type.is_some()))),
            }
        }
        Err(Error::protocol(
            &request.context,
            format!("the list of referrers has more than {MAX_PAGES} pages"),
        ))
    }

    async fn read_index(&self, reply: Reply) -> Result<Bytes> {
        let idle = self.timeouts().idle;
        body::collect(reply.response, MAX_MANIFEST_SIZE as usize, idle, self.counters(), &reply.context).await
    }

    /// The list under the fallback tag; `None` if there is no such tag.
    async fn fallback_list(
        &self,
        endpoint: Arc<Endpoint>,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Value>>> {
        let tag = TagOrDigest::Tag(subject.referrers_tag());
        let manifest = found(self.manifest_from(endpoint, repository, &tag).await)?;
        // Something else under that tag is not a list of referrers: as good as none.
        Ok(manifest.and_then(|manifest| entries(&manifest.bytes)))
    }

    /// Stores a manifest that refers to `subject`, so that [`Self::referrers`] finds it: by its digest, and where the
    /// registry takes no note of the subject, in the index under the fallback tag too.
    ///
    /// `descriptor` is the manifest's own, with `artifact_type` and annotations as they should be listed.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] if the descriptor is not that of the bytes; [`Error::Protocol`] if other writers kept
    /// removing our entry from the fallback index; those of any request.
    pub async fn push_referrer(
        &self,
        repository: &Repository,
        bytes: Bytes,
        media_type: &str,
        descriptor: &Descriptor,
        subject: &Digest,
    ) -> Result<PushedManifest> {
        let pushed = self.push_manifest(repository, &descriptor.digest, media_type, bytes).await?;
        if !pushed.subject_accepted {
            self.add_to_fallback(repository, descriptor, subject).await?;
        }
        Ok(pushed)
    }

    async fn add_to_fallback(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        subject: &Digest,
    ) -> Result<()> {
        let endpoint = self.push_endpoint(repository)?;
        let tag = TagOrDigest::Tag(subject.referrers_tag());
        let entry = serde_json::to_value(descriptor)
            .map_err(|error| Error::protocol(&context(repository, "list referrer"), error.to_string()))?;
        let policy = self.retry_policy();
        let read =
            || self.retrying(policy.clone(), || self.manifest_from(endpoint.clone(), repository, &tag));
        let mut begun = Instant::now();
        let mut current = found(read().await)?;
        for _ in 0..WRITE_TRIES {
            let old = current.as_ref().map(|manifest| &manifest.bytes[..]);
            // Nothing to change: it is there, from before or from the last round.
            let Some(new) = with_entry(old, &entry) else { return Ok(()) };
            let new = Bytes::from(new);
            self.push_manifest(repository, tag.to_string().as_str(), OCI_INDEX, new).await?;
            // There is no compare-and-swap: another writer may have read what we read and write after us. It will
            // have done so after about the time that reading and writing took us. The random part keeps writers
            // that collided from colliding again.
            let round = begun.elapsed().clamp(SETTLE.start, SETTLE.end);
            tokio::time::sleep(round + round.mul_f64(fastrand::f64())).await;
            begun = Instant::now();
            current = found(read().await)?;
        }
        let old = current.as_ref().map(|manifest| &manifest.bytes[..]);
        if with_entry(old, &entry).is_none() {
            return Ok(());
        }
        let reason = format!("other writers kept replacing the index `{tag}`; push again");
        Err(Error::protocol(&context(repository, format!("list referrer of {subject}")), reason))
    }
}

/// Whether this status says that there is no referrers API. Registries differ: those without it answer 404, proxies
/// 400, 405 or 501, some a page of HTML with status 200. Refused credentials are another matter.
fn lacks_api(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 400 | 404 | 405 | 406 | 501)
}

/// The descriptors of an index as plain JSON; `None` if the bytes are not an index.
fn entries(bytes: &[u8]) -> Option<Vec<Value>> {
    let mut index: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    match index.remove("manifests") {
        Some(Value::Array(entries)) => Some(entries),
        // Go writes null for an empty list.
        Some(Value::Null) => Some(Vec::new()),
        _ => None,
    }
}

/// The index `old` with `entry`, in place of one with the same digest; everything else stays. `None` if nothing
/// would change.
fn with_entry(old: Option<&[u8]>, entry: &Value) -> Option<Vec<u8>> {
    let fresh = || {
        let mut index = Map::new();
        index.insert("schemaVersion".to_owned(), json!(2));
        index.insert("mediaType".to_owned(), json!(OCI_INDEX));
        index.insert("manifests".to_owned(), json!([]));
        index
    };
    let parsed = old.and_then(|old| serde_json::from_slice::<Map<String, Value>>(old).ok());
    let mut index = parsed.unwrap_or_else(fresh);
    let mut entries = match index.remove("manifests") {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    };
    if entries.contains(entry) {
        return None;
    }
    entries.retain(|other| other.get("digest") != entry.get("digest"));
    entries.push(entry.clone());
    index.insert("manifests".to_owned(), Value::Array(entries));
    serde_json::to_vec(&Value::Object(index)).ok()
}

/// The next page that a `Link` header names (RFC 8288), if it is on the same server.
fn next_page(endpoint: &Endpoint, reply: &Reply) -> Option<Url> {
    let links = reply.response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let target =
        links.flat_map(|value| value.split(",<").flat_map(|v| v.split(", <"))).find_map(next_link)?;
    let url = reply.url.join(&target).ok()?;
    if endpoint.owns(&url) {
        return Some(url);
    }
    tracing::warn!(url = %crate::redact::url(&url), "the next page of referrers is on another server: not followed");
    None
}

/// The target of one link if its relation is `next`.
fn next_link(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().trim_start_matches('<').split_once('>')?;
    let is_next =
        parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel")
                && value
                    .trim()
                    .trim_matches('"')
                    .split_ascii_whitespace()
                    .any(|rel| rel.eq_ignore_ascii_case("next"))
        });
    is_next.then(|| target.to_owned())
}

/// The referrers that a list names, as far as they can be read; `None` if the bytes are no list.
#[cfg(fuzzing)]
pub fn fuzz_list(bytes: &[u8]) -> Option<Vec<Descriptor>> {
    entries(bytes).map(select::readable)
}

/// The list `old` with one more entry, as it is written under the fallback tag; `None` if it is there already.
#[cfg(fuzzing)]
pub fn fuzz_add(old: &[u8], entry: &Descriptor) -> Option<Vec<u8>> {
    with_entry(Some(old), &serde_json::to_value(entry).ok()?)
}

/// The target of a `Link` header's value whose relation is `next`.
#[cfg(fuzzing)]
pub fn fuzz_link(link: &str) -> Option<String> {
    next_link(link)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(next_link("</v2/x?n=2>; rel=\"next\"").as_deref(), Some("/v2/x?n=2"));
        assert_eq!(next_link("<https://h/a,b>;rel=next").as_deref(), Some("https://h/a,b"));
        assert_eq!(next_link("</x>; title=\"a\"; rel=\"prev next\"").as_deref(), Some("/x"));
        assert_eq!(next_link("</x>; rel=\"prev\""), None);
        assert_eq!(next_link("x; rel=next"), None);
        assert_eq!(next_link(""), None);
    }

    fn entry(digest: &str, note: &str) -> Value {
        json!({"mediaType": "m", "digest": digest, "size": 1, "annotations": {"note": note}})
    }

    #[test]
    fn entries_are_added_replaced_and_kept() {
        let first = with_entry(None, &entry("sha512:odd", "a")).unwrap();
        let second = with_entry(Some(&first), &entry("sha256:b", "b")).unwrap();
        let third = with_entry(Some(&second), &entry("sha256:b", "c")).unwrap();
        let list = entries(&third).unwrap();
        assert_eq!(list, [entry("sha512:odd", "a"), entry("sha256:b", "c")]);
        assert_eq!(with_entry(Some(&third), &entry("sha256:b", "c")), None);
        let index: Value = serde_json::from_slice(&third).unwrap();
        assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    }

    #[test]
    fn unknown_members_of_the_index_survive() {
        let old = br#"{"schemaVersion":2,"annotations":{"k":"v"},"manifests":null,"x":1}"#;
        let new = with_entry(Some(old), &entry("sha256:b", "b")).unwrap();
        let index: Value = serde_json::from_slice(&new).unwrap();
        assert_eq!((&index["annotations"]["k"], &index["x"]), (&json!("v"), &json!(1)));
    }
}
