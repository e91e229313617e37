//! Whole blobs: existence, bytes, streams (distribution-spec, "Pulling blobs").

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use reqwest::{Method, StatusCode};

use super::reader::BlobReader;
use crate::body::ByteStream;
use crate::client::{Client, context, note_health};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, DigestHasher};
use crate::error::{Context, Error, Result};
use crate::hosts::Endpoint;
use crate::reference::Repository;
use crate::tls::Purpose;
use crate::transport::Request;

/// What is set aside before any byte has come; what is larger grows with the data.
const MAX_PREALLOCATION: u64 = 8 << 20;

impl Client {
    /// Whether the registry, or any mirror of it, says that it has a blob.
    ///
    /// # Errors
    /// Those of any request. They say nothing about the blob: some storage refuses to be asked this way what it serves.
    pub async fn blob_exists(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let endpoints = self.pull_endpoints(repository, false)?;
        let mut there = Ok(false);
        for endpoint in endpoints {
            there =
                self.retrying(self.look_up_policy(), || self.head_blob(&endpoint, repository, digest)).await;
            note_health(&endpoint, &there);
            if matches!(there, Ok(true)) {
                break;
            }
        }
        there
    }

    pub(super) async fn head_blob(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool> {
        let tail = format!("blobs/{digest}");
        let operation = format!("look up blob {digest}");
        let mut request = Request::new(endpoint, Method::HEAD, repository, &tail, operation);
        request.purpose = Purpose::Blob;
        self.look_up(endpoint, &request).await
    }

    /// Sends a HEAD request: whether what it is about is there. Lengths and digests are for answers that bring content.
    pub(crate) async fn look_up(&self, endpoint: &Endpoint, request: &Request) -> Result<bool> {
        let reply = self.transport().send(endpoint, request, self.counters()).await?;
        match reply.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(reply.into_error(self.counters()).await),
        }
    }

    /// The whole blob, verified, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is sent if the descriptor's size is above `limit`;
    /// [`Error::DigestMismatch`] after the registry itself was asked as well as its mirrors; those of any request.
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes> {
        if descriptor.size > limit {
            return Err(Error::TooLarge {
                context: context(repository, format!("read blob {}", descriptor.digest)),
                limit,
                size: Some(descriptor.size),
            });
        }
        match self.collect_blob(repository, descriptor, false).await {
            // A mirror with damaged content must not stand in the way of the registry that has it right.
            Err(Error::DigestMismatch { .. }) if self.pull_endpoints(repository, false)?.len() > 1 => {
                self.collect_blob(repository, descriptor, true).await
            }
            done => done,
        }
    }

    async fn collect_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        origin_only: bool,
    ) -> Result<Bytes> {
        let mut stream = self.verified(repository, descriptor, origin_only).await?;
        let mut bytes = BytesMut::with_capacity(descriptor.size.min(MAX_PREALLOCATION) as usize);
        while let Some(piece) = stream.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// The whole blob as a stream. Its last item is an error if size or digest are wrong, so nothing may be relied
    /// on before the stream has ended. A broken connection is continued with a range request.
    ///
    /// # Errors
    /// Those of any request, at once; later ones come through the stream.
    pub async fn blob_stream(&self, repository: &Repository, descriptor: &Descriptor) -> Result<ByteStream> {
        self.verified(repository, descriptor, false).await
    }

    async fn verified(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        origin_only: bool,
    ) -> Result<ByteStream> {
        let blob = self.reader(repository, descriptor.digest.clone(), descriptor.size, origin_only);
        let bytes = blob.read_range(0..descriptor.size).await?;
        Ok(verify(bytes, descriptor.digest.clone(), blob.context()))
    }
}

struct Verifying {
    bytes: ByteStream,
    hasher: DigestHasher,
    expected: Digest,
    context: Context,
}

/// `bytes`, followed by an error if they do not have the digest `expected`.
fn verify(bytes: ByteStream, expected: Digest, context: Context) -> ByteStream {
    let state = Verifying { bytes, hasher: DigestHasher::new(), expected, context };
    let checked = futures::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.bytes.next().await {
            Some(Ok(piece)) => {
                state.hasher.update(&piece);
                Some((Ok(piece), Some(state)))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                let Verifying { hasher, expected, context, .. } = state;
                let actual = hasher.finish();
                (actual != expected).then(|| (Err(Error::DigestMismatch { context, expected, actual }), None))
            }
        }
    });
    checked.boxed()
}
