//! A blob in a local file: layers of an OCI layout, and tests without a network.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::reader::BlobReader;
use crate::body::ByteStream;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};

/// How much is read at a time: large enough that the hop to a blocking thread costs little.
const PIECE: u64 = 512 << 10;

/// A [`BlobReader`] over a file, or a section of one (a blob within a tar). Reads happen on blocking threads.
#[derive(Debug, Clone)]
pub struct FileBlob {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    size: u64,
    digest: Digest,
}

impl FileBlob {
    /// The whole file at `path`, which the caller says has this digest.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened.
    pub fn open(path: impl AsRef<Path>, digest: Digest) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        let size = file.metadata().map_err(|error| Error::io(path, error))?.len();
        Ok(Self { file: Arc::new(file), path: path.to_owned(), offset: 0, size, digest })
    }

    /// `size` bytes from `offset` on of the open `file`; `path` is for messages.
    pub fn section(
        file: Arc<File>,
        path: impl Into<PathBuf>,
        offset: u64,
        size: u64,
        digest: Digest,
    ) -> Self {
        Self { file, path: path.into(), offset, size, digest }
    }

    async fn piece(&self, start: u64, len: usize) -> Result<Bytes> {
        let (file, path, offset) = (self.file.clone(), self.path.clone(), self.offset);
        let read = tokio::task::spawn_blocking(move || {
            let at = offset.checked_add(start).ok_or(std::io::ErrorKind::InvalidInput)?;
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at)?;
            Ok::<_, std::io::Error>(Bytes::from(bytes))
        });
        let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        read.map_err(|error| Error::io(&path, error))
    }
}

#[async_trait]
impl BlobReader for FileBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> &Digest {
        &self.digest
    }

    async fn read_range(&self, range: Range<u64>) -> Result<ByteStream> {
        if range.start > range.end || range.end > self.size {
            let context = Context {
                operation: format!("read {}", self.path.display()),
                host: "local file".to_owned(),
                repository: String::new(),
            };
            return Err(Error::RangeNotSatisfiable {
                context,
                start: range.start,
                end: range.end,
                size: self.size,
            });
        }
        let blob = self.clone();
        let pieces = futures::stream::try_unfold(range, move |range| {
            let blob = blob.clone();
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let len = (range.end - range.start).min(PIECE);
                let piece = blob.piece(range.start, len as usize).await?;
                Ok(Some((piece, range.start + len..range.end)))
            }
        });
        Ok(pieces.boxed())
    }
}
