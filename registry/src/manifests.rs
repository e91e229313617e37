//! Manifests: get, look up, push (distribution-spec, "Pulling manifests", "Pushing Manifests").

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::body;
use crate::client::Client;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hosts::Endpoint;
use crate::media_types::{ACCEPT_MANIFESTS, OCI_INDEX, OCI_MANIFEST, OCTET_STREAM, essence};
use crate::reference::{Reference, Repository, TagOrDigest};
use crate::transport::Request;

/// The largest manifest that is read, in bytes. The distribution specification asks registries to take at least
/// 4 MiB, and real ones stop there; an index for many platforms has some ten kilobytes.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

const CONTENT_DIGEST: &str = "docker-content-digest";
const OCI_SUBJECT: &str = "oci-subject";

/// A manifest as the registry sent it, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `Content-Type` without parameters, or the manifest's own `mediaType` where the header says nothing.
    pub media_type: String,
    /// Digest of [`Self::bytes`].
    pub digest: Digest,
    /// The exact bytes.
    pub bytes: Bytes,
}

impl Manifest {
    /// The descriptor of this manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest.clone(), self.bytes.len() as u64)
    }
}

/// What a registry said to a pushed manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// Digest of the bytes pushed.
    pub digest: Digest,
    /// Whether the registry took note of the manifest's `subject` (header `OCI-Subject`). If not, the pusher has to
    /// list the manifest under the fallback tag; [`Client::push_referrer`] does.
    pub subject_accepted: bool,
}

impl Client {
    /// The manifest that `reference` means; its digest decides if it has one.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DigestMismatch`] if the bytes are not those of the digest asked for (or that
    /// the registry names), [`Error::TooLarge`] above [`MAX_MANIFEST_SIZE`], and those of any request.
    pub async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.get_manifest(reference.repository(), &reference.tag_or_digest()).await
    }

    /// The manifest of `repository` with this tag or digest. Errors as for [`Self::manifest`].
    pub async fn manifest_in<T>(&self, repository: &Repository, which: T) -> Result<Manifest>
    where
        T: TryInto<TagOrDigest>,
        Error: From<T::Error>,
    {
        let which = which.try_into()?;
        self.get_manifest(repository, &which).await
    }

    async fn get_manifest(&self, repository: &Repository, which: &TagOrDigest) -> Result<Manifest> {
        let endpoints = self.pull_endpoints(repository, matches!(which, TagOrDigest::Tag(_)))?;
        self.over_mirrors(&endpoints, |endpoint| self.manifest_from(endpoint, repository, which)).await
    }

    pub(crate) async fn manifest_from(
        &self,
        endpoint: Arc<Endpoint>,
        repository: &Repository,
        which: &TagOrDigest,
    ) -> Result<Manifest> {
        let request = manifest_request(&endpoint, Method::GET, repository, which);
        let reply = self.transport().send(&endpoint, &request, self.counters()).await?;
        if reply.status() != StatusCode::OK {
            return Err(reply.into_error(self.counters()).await);
        }
        let content_type = reply.header(CONTENT_TYPE).map(essence);
        let named = reply.header(CONTENT_DIGEST).and_then(|text| text.parse().ok());
        let context = reply.context;
        let idle = self.timeouts().idle;
        let limit = MAX_MANIFEST_SIZE as usize;
        let bytes = body::collect(reply.response, limit, idle, self.counters(), &context).await?;
        let actual = Digest::of(&bytes);
        let expected = match which {
            TagOrDigest::Digest(digest) => Some(digest.clone()),
            TagOrDigest::Tag(_) => named,
        };
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(Error::DigestMismatch { context, expected, actual });
        }
        let media_type = match content_type
            .filter(|t| !matches!(t.as_str(), "" | "text/plain" | "application/json" | OCTET_STREAM))
        {
            Some(media_type) => media_type,
            None => declared_type(&bytes).ok_or_else(|| {
                Error::protocol(
                    &context,
                    "the manifest has no media type, neither in the answer nor in itself",
                )
            })?,
        };
        Ok(Manifest { media_type, digest: actual, bytes })
    }

    /// Type, digest and size of a manifest without its bytes; `None` if there is none.
    ///
    /// # Errors
    /// Those of any request; [`Error::Protocol`] if the answer names no digest for a tag or no size.
    pub async fn head_manifest<T>(&self, repository: &Repository, which: T) -> Result<Option<Descriptor>>
    where
        T: TryInto<TagOrDigest>,
        Error: From<T::Error>,
    {
        let which = which.try_into()?;
        let endpoints = self.pull_endpoints(repository, matches!(which, TagOrDigest::Tag(_)))?;
        found(
            self.over_mirrors(&endpoints, |endpoint| self.head_manifest_at(endpoint, repository, &which))
                .await,
        )
    }

    /// Whether the registry that is pushed to has a manifest. HEAD decides only if it says so clearly; otherwise the
    /// manifest is read.
    ///
    /// # Errors
    /// Those of any request, if reading the manifest fails too.
    pub async fn manifest_exists<T>(&self, repository: &Repository, which: T) -> Result<bool>
    where
        T: TryInto<TagOrDigest>,
        Error: From<T::Error>,
    {
        let which = which.try_into()?;
        let endpoint = self.push_endpoint(repository)?;
        let request = manifest_request(&endpoint, Method::HEAD, repository, &which);
        let (endpoint, request) = (&endpoint, &request);
        let looked = self.retrying(self.look_up_policy(), || self.look_up(endpoint, request)).await;
        let Err(error) = looked else { return looked };
        tracing::debug!(%error, "not known whether the manifest is there; reading it");
        let read = self.retrying(self.retry_policy().clone(), || {
            self.manifest_from(endpoint.clone(), repository, &which)
        });
        Ok(found(read.await)?.is_some())
    }

    async fn head_manifest_at(
        &self,
        endpoint: Arc<Endpoint>,
        repository: &Repository,
        which: &TagOrDigest,
    ) -> Result<Descriptor> {
        let request = manifest_request(&endpoint, Method::HEAD, repository, which);
        let reply = self.transport().send(&endpoint, &request, self.counters()).await?;
        if reply.status() != StatusCode::OK {
            return Err(reply.into_error(self.counters()).await);
        }
        let named = reply.header(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        let digest = match (which, named) {
            (TagOrDigest::Digest(expected), Some(actual)) if *expected != actual => {
                return Err(Error::DigestMismatch {
                    context: reply.context,
                    expected: expected.clone(),
                    actual,
                });
            }
            (TagOrDigest::Digest(expected), _) => expected.clone(),
            (TagOrDigest::Tag(_), Some(actual)) => actual,
            (TagOrDigest::Tag(_), None) => {
                return Err(Error::protocol(&reply.context, "the answer names no Docker-Content-Digest"));
            }
        };
        let size = reply.header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let size =
            size.ok_or_else(|| Error::protocol(&reply.context, "the answer names no Content-Length"))?;
        let media_type = reply.header(CONTENT_TYPE).map(essence).unwrap_or_default();
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// Stores `bytes` as manifest under a tag or under its digest.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] before anything is sent if the digest is not that of the bytes; [`Error::Denied`],
    /// [`Error::Status`] and those of any request.
    pub async fn push_manifest<T>(
        &self,
        repository: &Repository,
        which: T,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<PushedManifest>
    where
        T: TryInto<TagOrDigest>,
        Error: From<T::Error>,
    {
        let which = which.try_into()?;
        let endpoint = self.push_endpoint(repository)?;
        let digest = Digest::of(&bytes);
        let mut request = manifest_request(&endpoint, Method::PUT, repository, &which);
        if let TagOrDigest::Digest(expected) = &which
            && *expected != digest
        {
            return Err(Error::DigestMismatch {
                context: request.context,
                expected: expected.clone(),
                actual: digest,
            });
        }
        let content_type = HeaderValue::try_from(media_type)
            .map_err(|_| Error::protocol(&request.context, "the media type is not valid in a header"))?;
        request.headers.insert(CONTENT_TYPE, content_type);
        request.body = Some(bytes);
        let (endpoint, request, digest) = (&endpoint, &request, &digest);
        self.retrying(self.retry_policy().clone(), || async move {
            let reply = self.transport().send(endpoint, request, self.counters()).await?;
            if !reply.status().is_success() {
                return Err(reply.into_error(self.counters()).await);
            }
            let stored = reply.header(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
            if let Some(actual) = stored.filter(|stored| stored != digest) {
                return Err(Error::DigestMismatch {
                    context: reply.context,
                    expected: digest.clone(),
                    actual,
                });
            }
            let subject_accepted = reply.header(OCI_SUBJECT).is_some();
            Ok(PushedManifest { digest: digest.clone(), subject_accepted })
        })
        .await
    }
}

/// `NotFound` as `None`.
pub(crate) fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn manifest_request(
    endpoint: &Endpoint,
    method: Method,
    repository: &Repository,
    which: &TagOrDigest,
) -> Request {
    let verb = match method {
        Method::HEAD => "look up",
        Method::PUT => "push",
        _ => "get",
    };
    let operation = format!("{verb} manifest `{which}`");
    let mut request = Request::new(endpoint, method, repository, &format!("manifests/{which}"), operation);
    if request.method != Method::PUT {
        request.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPT_MANIFESTS));
    }
    request
}

/// The `mediaType` that a manifest names for itself, or that its members give away: OCI makes it optional.
fn declared_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let typed = serde_json::from_slice::<Typed>(bytes).ok()?;
    let by_shape = match (typed.manifests, typed.layers) {
        (Some(_), None) => Some(OCI_INDEX),
        (None, Some(_)) => Some(OCI_MANIFEST),
        _ => None,
    };
    typed.media_type.filter(|text| !text.is_empty()).or_else(|| by_shape.map(str::to_owned))
}
