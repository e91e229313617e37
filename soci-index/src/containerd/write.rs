//! Writing blobs to the content store.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use containerd_api::services::content::v1 as api;
use futures::{StreamExt, TryStreamExt};
use registry::{ByteStream, Descriptor, Digest};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use super::connection::{Containerd, PATIENCE, call, found};
use super::error::ContainerdError;
use super::labels::Labels;

/// Bytes in one message. Larger ones gain nothing on a local socket; containerd takes up to 16 MiB.
const CHUNK: usize = 1 << 20;
/// How long a writer of somebody else may stand still before we stop waiting for it.
const LOCKED: Duration = Duration::from_secs(30);
/// How often to look at it.
const LOOK: Duration = Duration::from_millis(200);

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
