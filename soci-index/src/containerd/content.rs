//! The content store: what containerd knows about blobs, and reading them.

use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use containerd_api::services::content::v1 as api;
use containerd_api::services::content::v1::content_client::ContentClient;
use futures::{StreamExt, TryStreamExt};
use prost_types::FieldMask;
use registry::{BlobReader, ByteStream, Context, Digest, DigestHasher};
use tonic::transport::Channel;

use super::connection::{Containerd, MAX_MESSAGE, PATIENCE, call, found};
use super::error::ContainerdError;
use super::labels::Labels;

/// What the content store knows about a blob.
#[derive(Debug, Clone)]
pub struct ContentInfo {
    /// Size in bytes.
    pub size: u64,
    /// Labels.
    pub labels: Labels,
    /// When it was stored, if containerd says so.
    pub created: Option<SystemTime>,
}

impl From<api::Info> for ContentInfo {
    fn from(info: api::Info) -> Self {
        Self {
            size: u64::try_from(info.size).unwrap_or_default(),
            labels: info.labels,
            created: info.created_at.and_then(|time| SystemTime::try_from(time).ok()),
        }
    }
}

impl Containerd {
    pub(super) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// What is known about a blob; `None` if it is not there.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn content_info(&self, digest: &Digest) -> Result<Option<ContentInfo>, ContainerdError> {
        let request = self.request(api::InfoRequest { digest: digest.to_string() });
        let answer = call("look up content", Some(PATIENCE), self.content().info(request)).await;
        Ok(found(answer)?.and_then(|answer| answer.info).map(ContentInfo::from))
    }

    /// All blobs of the namespace; those whose name is no digest are left out.
    ///
    /// # Errors
    /// When containerd refuses, stops in the middle, or does not answer.
    pub async fn contents(&self) -> Result<Vec<(Digest, ContentInfo)>, ContainerdError> {
        const OPERATION: &str = "list content";
        let request = self.request(api::ListContentRequest { filters: Vec::new() });
        let mut answers = call(OPERATION, Some(PATIENCE), self.content().list(request)).await?;
        let mut contents = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, answers.message()).await;
            let next =
                next.map_err(|_| ContainerdError::Silent { operation: OPERATION.into(), limit: PATIENCE })?;
            let Some(answer) = next.map_err(|status| ContainerdError::refused(OPERATION, &status))? else {
                return Ok(contents);
            };
            let known = |info: api::Info| Some((info.digest.parse().ok()?, ContentInfo::from(info)));
            contents.extend(answer.info.into_iter().filter_map(known));
        }
    }

    /// Sets labels of a blob; an empty value removes one. Others stay.
    ///
    /// # Errors
    /// When the blob is not there, or containerd refuses or does not answer.
    pub async fn label_content(&self, digest: &Digest, labels: Labels) -> Result<(), ContainerdError> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = api::Info { digest: digest.to_string(), labels, ..api::Info::default() };
        let request = api::UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
        call("label content", Some(PATIENCE), self.content().update(self.request(request))).await?;
        Ok(())
    }

    /// Deletes a blob; one that is not there is as good.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn delete_content(&self, digest: &Digest) -> Result<(), ContainerdError> {
        let request = self.request(api::DeleteContentRequest { digest: digest.to_string() });
        found(call("delete content", Some(PATIENCE), self.content().delete(request)).await)?;
        Ok(())
    }

    /// The bytes `range` of a blob. The stream gives exactly these, or ends with an error; they are not verified.
    ///
    /// # Errors
    /// When the blob is not there or does not have that range.
    pub async fn read_content(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<ByteStream, ContainerdError> {
        let operation = format!("read {digest}");
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            // A size of 0 would mean: to the end.
            return Ok(futures::stream::empty().boxed());
        }
        let (Ok(offset), Ok(size)) = (i64::try_from(range.start), i64::try_from(wanted)) else {
            return Err(ContainerdError::Invalid(format!("{operation}: the range is too large")));
        };
        let request = self.request(api::ReadContentRequest { digest: digest.to_string(), offset, size });
        let answers = call(&operation, Some(PATIENCE), self.content().read(request)).await?;
        let address = self.endpoint().socket.clone();
        let pieces = futures::stream::try_unfold((answers, wanted), move |(mut answers, left)| {
            let (operation, address) = (operation.clone(), address.clone());
            async move {
                let failed = |reason: String| failure(&address, &format!("{operation}: {reason}"));
                if left == 0 {
                    return Ok(None);
                }
                let next = tokio::time::timeout(PATIENCE, answers.message()).await;
                match next.map_err(|_| failed("no answer".to_owned()))? {
                    Err(status) => Err(failed(crate::text::excerpt(status.message()))),
                    Ok(None) => Err(failed(format!("ended {left} bytes early"))),
                    Ok(Some(answer)) if answer.data.len() as u64 > left => {
                        Err(failed("too many bytes".into()))
                    }
                    Ok(Some(answer)) => {
                        let left = left - answer.data.len() as u64;
                        Ok(Some((Bytes::from(answer.data), (answers, left))))
                    }
                }
            }
        });
        Ok(pieces.boxed())
    }

    /// A whole blob of at most `limit` bytes, verified; `None` if it is not there.
    ///
    /// # Errors
    /// When it is larger, damaged, or cannot be read.
    pub async fn content_bytes(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, ContainerdError> {
        let Some(info) = self.content_info(digest).await? else { return Ok(None) };
        let damaged = |problem| ContainerdError::Damaged { digest: digest.clone(), problem };
        if info.size > limit {
            return Err(damaged(format!("has {} bytes, more than the {limit} allowed", info.size)));
        }
        let mut bytes = BytesMut::with_capacity(info.size as usize);
        let mut stream = self.read_content(digest, 0..info.size).await?;
        while let Some(piece) = stream.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(damaged(format!("has content with digest {actual}")));
        }
        Ok(Some(bytes.freeze()))
    }

    /// A whole blob as a stream that ends with an error unless its digest is right.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn content_stream(&self, digest: &Digest, size: u64) -> Result<ByteStream, ContainerdError> {
        let pieces = self.read_content(digest, 0..size).await?;
        let (digest, address) = (digest.clone(), self.endpoint().socket.clone());
        let checked = futures::stream::try_unfold(Some((pieces, DigestHasher::new())), move |state| {
            let (digest, address) = (digest.clone(), address.clone());
            async move {
                let Some((mut pieces, mut hasher)) = state else { return Ok(None) };
                if let Some(piece) = pieces.try_next().await? {
                    hasher.update(&piece);
                    return Ok(Some((piece, Some((pieces, hasher)))));
                }
                let actual = hasher.finish();
                if actual != digest {
                    return Err(failure(&address, &format!("{digest} has content with digest {actual}")));
                }
                Ok(None)
            }
        });
        Ok(checked.boxed())
    }

    /// A blob for ranged reads, `None` if it is not there.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn content_reader(&self, digest: &Digest) -> Result<Option<ContainerdBlob>, ContainerdError> {
        let info = self.content_info(digest).await?;
        Ok(info.map(|info| ContainerdBlob {
            containerd: self.clone(),
            digest: digest.clone(),
            size: info.size,
        }))
    }
}

/// A failure while containerd's content is being read, as streams of bytes have them.
fn failure(socket: &Path, reason: &str) -> registry::Error {
    registry::Error::io(socket, std::io::Error::other(reason.to_owned()))
}

/// A blob in containerd's content store, for ranged reads.
#[derive(Debug, Clone)]
pub struct ContainerdBlob {
    containerd: Containerd,
    digest: Digest,
    size: u64,
}

#[async_trait]
impl BlobReader for ContainerdBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> &Digest {
        &self.digest
    }

    async fn read_range(&self, range: Range<u64>) -> registry::Result<ByteStream> {
        let socket = &self.containerd.endpoint().socket;
        if range.start > range.end || range.end > self.size {
            return Err(registry::Error::RangeNotSatisfiable {
                context: Context {
                    operation: format!("read {}", self.digest),
                    host: self.containerd.endpoint().to_string(),
                    repository: String::new(),
                },
                start: range.start,
                end: range.end,
                size: self.size,
            });
        }
        let stream = self.containerd.read_content(&self.digest, range).await;
        stream.map_err(|error| failure(socket, &error.to_string()))
    }
}
