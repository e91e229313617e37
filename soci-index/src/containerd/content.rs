//! The content store: blobs by digest, in containerd.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use containerd_api::services::content::v1 as api;
use containerd_api::services::content::v1::content_client::ContentClient;
use futures::{StreamExt, TryStreamExt};
use prost_types::FieldMask;
use registry::{BlobReader, ByteStream, Context, Descriptor, Digest, DigestHasher};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::labels::Labels;
use super::{Containerd, ContainerdError, MAX_MESSAGE, PATIENCE, call, found};

/// Bytes in one message. Larger ones gain nothing on a local socket; containerd takes up to 16 MiB.
const CHUNK: usize = 1 << 20;
/// How long a writer of somebody else may stand still before we stop waiting for it.
const LOCKED: Duration = Duration::from_secs(30);
/// How often to look at it.
const LOOK: Duration = Duration::from_millis(200);

/// What the content store knows about a blob.
#[derive(Debug, Clone)]
pub struct ContentInfo {
    /// Size in bytes.
    pub size: u64,
    /// Labels.
    pub labels: Labels,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The blob was written.
    New,
    /// The blob was there. It is under the lease now, if there is one; its labels are as they were.
    There,
}

/// What opening a writer found.
#[derive(Debug)]
pub enum Opened {
    /// The blob is there, and under the lease now, if there is one.
    There,
    /// A writer, which wants the bytes from its offset on.
    Writer(Box<Writer>),
}

/// Writes one blob.
#[derive(Debug)]
pub struct Writer {
    requests: mpsc::Sender<api::WriteContentRequest>,
    answers: Streaming<api::WriteContentResponse>,
    operation: String,
    offset: u64,
}

impl Containerd {
    fn content(&self) -> ContentClient<Channel> {
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
        Ok(found(answer)?.and_then(|answer| answer.info).map(|info| ContentInfo {
            size: u64::try_from(info.size).unwrap_or_default(),
            labels: info.labels,
        }))
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

    /// Writes bytes under their digest, with labels; if they are there already, they get the labels too.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn put_content(
        &self,
        name: &str,
        bytes: Bytes,
        labels: Labels,
    ) -> Result<Digest, ContainerdError> {
        let blob = Descriptor::of("", &bytes);
        let open = |offset: u64| {
            let rest = bytes.slice((offset as usize).min(bytes.len())..);
            std::future::ready(Ok(futures::stream::once(async { Ok(rest) }).boxed()))
        };
        if self.write_content(name, &blob, &labels, open, |_| {}).await? == Written::There {
            self.label_content(&blob.digest, labels).await?;
        }
        Ok(blob.digest)
    }

    /// Writes the blob that `open` gives from the offset it is told on, with labels. `name` is how containerd knows the
    /// unfinished blob: a later write of the same name goes on where this one broke off, and two at a time wait for one
    /// another. `advanced` is told how many bytes have arrived, those of an earlier write included.
    ///
    /// # Errors
    /// When the bytes cannot be read or have another size or digest; then nothing is visible.
    pub async fn write_content<F>(
        &self,
        name: &str,
        blob: &Descriptor,
        labels: &Labels,
        open: impl Fn(u64) -> F,
        advanced: impl Fn(u64),
    ) -> Result<Written, ContainerdError>
    where
        F: Future<Output = Result<ByteStream, registry::Error>>,
    {
        let mut again = true;
        loop {
            let mut writer = match self.open_writer(name, blob).await? {
                Opened::There => return Ok(Written::There),
                Opened::Writer(writer) => writer,
            };
            let resumed = writer.offset > 0;
            advanced(writer.offset);
            let written = writer.copy(open(writer.offset).await?, blob, labels, &advanced).await;
            let failed = match written {
                Ok(()) => return Ok(Written::New),
                Err(error) if error.already_exists() => return Ok(Written::There),
                Err(error) => error,
            };
            drop(writer);
            // What was downloaded before the source failed is worth keeping; what turned out wrong is not.
            if !matches!(failed, ContainerdError::Source(_)) || resumed {
                self.abort(name).await;
            }
            // What an earlier write had left may have been the fault.
            if !(resumed && again && !matches!(failed, ContainerdError::Source(_))) {
                return Err(failed);
            }
            again = false;
        }
    }

    /// Opens a writer, waiting for one that somebody else has open.
    ///
    /// # Errors
    /// [`ContainerdError::Locked`] if that one makes no progress; when containerd refuses or does not answer.
    pub async fn open_writer(&self, name: &str, blob: &Descriptor) -> Result<Opened, ContainerdError> {
        let mut seen = (None, tokio::time::Instant::now());
        loop {
            let opened = self.try_open(name, blob).await;
            match opened {
                Ok(writer) if writer.offset <= blob.size => return Ok(Opened::Writer(Box::new(writer))),
                Ok(writer) => {
                    drop(writer);
                    self.abort(name).await;
                }
                Err(error) if error.already_exists() => return Ok(Opened::There),
                Err(error) if error.code() != Some(Code::Unavailable) => return Err(error),
                // `ref … locked`; a containerd that has gone shows in the next request.
                Err(error) => {
                    let request = self.request(api::StatusRequest { r#ref: name.to_owned() });
                    let status =
                        call("look at a writer", Some(PATIENCE), self.content().status(request)).await;
                    let offset = match found(status) {
                        Ok(status) => status.and_then(|status| status.status).map(|status| status.offset),
                        Err(_) => return Err(error),
                    };
                    if seen.0 != offset {
                        seen = (offset, tokio::time::Instant::now());
                    }
                }
            }
            if seen.1.elapsed() > LOCKED {
                return Err(ContainerdError::Locked(blob.digest.clone()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn try_open(&self, name: &str, blob: &Descriptor) -> Result<Writer, ContainerdError> {
        let operation = format!("write {}", blob.digest);
        let (requests, receiver) = mpsc::channel(1);
        let first = api::WriteContentRequest {
            action: api::WriteAction::Stat.into(),
            r#ref: name.to_owned(),
            total: i64::try_from(blob.size).unwrap_or(i64::MAX),
            expected: blob.digest.to_string(),
            ..api::WriteContentRequest::default()
        };
        // The channel has room for one.
        let _ = requests.send(first).await;
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let mut client = self.content();
        let answers = call(&operation, Some(PATIENCE), client.write(self.request(stream))).await?;
        let mut writer = Writer { requests, answers, operation, offset: 0 };
        let answer = writer.answer().await?;
        writer.offset = u64::try_from(answer.offset).unwrap_or(u64::MAX);
        Ok(writer)
    }

    /// Throws an unfinished blob away.
    async fn abort(&self, name: &str) {
        let request = self.request(api::AbortRequest { r#ref: name.to_owned() });
        if let Err(error) = call("abort a write", Some(PATIENCE), self.content().abort(request)).await {
            tracing::debug!(%error, name, "an unfinished blob stays until it is collected");
        }
    }
}

impl Writer {
    async fn answer(&mut self) -> Result<api::WriteContentResponse, ContainerdError> {
        let refused = |status| ContainerdError::refused(&self.operation, &status);
        match tokio::time::timeout(PATIENCE, self.answers.message()).await {
            Err(_) => Err(ContainerdError::Silent { operation: self.operation.clone(), limit: PATIENCE }),
            Ok(Err(status)) => Err(refused(status)),
            Ok(Ok(None)) => Err(refused(tonic::Status::aborted("containerd ended the write"))),
            Ok(Ok(Some(answer))) => Ok(answer),
        }
    }

    /// Sends a request; if containerd has ended the call, what it says tells why.
    async fn send(
        &mut self,
        request: api::WriteContentRequest,
    ) -> Result<api::WriteContentResponse, ContainerdError> {
        let _ = self.requests.send(request).await;
        self.answer().await
    }

    /// Writes the rest of the blob and commits it.
    async fn copy(
        &mut self,
        mut source: ByteStream,
        blob: &Descriptor,
        labels: &HashMap<String, String>,
        advanced: &impl Fn(u64),
    ) -> Result<(), ContainerdError> {
        let mut chunk = BytesMut::new();
        loop {
            let piece = source.try_next().await?;
            let ended = piece.is_none();
            chunk.extend_from_slice(&piece.unwrap_or_default());
            while chunk.len() >= CHUNK || (ended && !chunk.is_empty()) {
                let data = chunk.split_to(chunk.len().min(CHUNK)).freeze();
                let len = data.len() as u64;
                if len > blob.size - self.offset {
                    let problem = format!("should have {} bytes and has more", blob.size);
                    return Err(ContainerdError::Damaged { digest: blob.digest.clone(), problem });
                }
                let request = api::WriteContentRequest {
                    action: api::WriteAction::Write.into(),
                    offset: self.offset as i64,
                    data: data.into(),
                    ..api::WriteContentRequest::default()
                };
                self.send(request).await?;
                self.offset += len;
                advanced(len);
            }
            if ended {
                break;
            }
        }
        if self.offset != blob.size {
            let problem = format!("should have {} bytes and has {}", blob.size, self.offset);
            return Err(ContainerdError::Damaged { digest: blob.digest.clone(), problem });
        }
        let commit = api::WriteContentRequest {
            action: api::WriteAction::Commit.into(),
            total: self.offset as i64,
            offset: self.offset as i64,
            expected: blob.digest.to_string(),
            labels: labels.clone(),
            ..api::WriteContentRequest::default()
        };
        let answer = self.send(commit).await?;
        if answer.digest != blob.digest.as_str() {
            let problem = format!("was stored as {}", crate::text::excerpt(&answer.digest));
            return Err(ContainerdError::Damaged { digest: blob.digest.clone(), problem });
        }
        Ok(())
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
