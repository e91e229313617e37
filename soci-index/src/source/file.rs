//! Blobs in local files, or in parts of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use registry::{ByteStream, Context, Digest, DigestHasher, FileBlob};

use super::archive::Extent;
use super::error::SourceError;
use super::image_source::Check;

/// Bytes read at a time. A zTOC builder is fastest with chunks of 256 KiB to 1 MiB.
const CHUNK: u64 = 1 << 20;
/// Chunks read ahead of the consumer.
const AHEAD: usize = 2;

/// A blob that is a part of a file.
#[derive(Debug, Clone)]
pub(crate) struct FileSlice {
    file: Arc<File>,
    path: PathBuf,
    extent: Extent,
    digest: Digest,
    /// The source, for messages.
    name: String,
}

impl FileSlice {
    pub(crate) fn new(file: Arc<File>, path: PathBuf, extent: Extent, digest: Digest, name: String) -> Self {
        Self { file, path, extent, digest, name }
    }

    /// For ranged reads.
    pub(crate) fn into_reader(self) -> FileBlob {
        FileBlob::section(self.file, self.path, self.extent.offset, self.extent.len, self.digest)
    }

    /// The whole blob, whose size the caller has bounded, checked.
    pub(crate) async fn read_all(self) -> Result<Bytes, SourceError> {
        let io = |source| SourceError::Io { path: self.path.clone(), source };
        let (file, Extent { offset, len }) = (Arc::clone(&self.file), self.extent);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; len as usize];
            file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
        });
        let bytes = read.await.map_err(|error| io(std::io::Error::other(error)))?.map_err(io)?;
        let actual = Digest::of(&bytes);
        if actual != self.digest {
            let problem = format!("has content with digest {actual}");
            return Err(SourceError::Corrupt { name: self.name, expected: self.digest, problem });
        }
        Ok(bytes)
    }

    /// The blob from its first byte to its last, read ahead on a blocking thread.
    pub(crate) fn into_stream(self, check: Check) -> ByteStream {
        let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut hasher = (check == Check::BySource).then(DigestHasher::new);
            let mut done = 0;
            while done < self.extent.len {
                let len = CHUNK.min(self.extent.len - done) as usize;
                let chunk = match read_chunk(&self.file, self.extent.offset + done, len) {
                    Ok(chunk) => chunk,
                    Err(error) => {
                        // A receiver that is gone wants no error either.
                        let _ = sender.blocking_send(Err(registry::Error::io(&self.path, error)));
                        return;
                    }
                };
                if let Some(hasher) = &mut hasher {
                    hasher.update(&chunk);
                }
                done += len as u64;
                if sender.blocking_send(Ok(Bytes::from(chunk))).is_err() {
                    return;
                }
            }
            let actual = hasher.map_or_else(|| self.digest.clone(), DigestHasher::finish);
            if actual != self.digest {
                let _ = sender.blocking_send(Err(registry::Error::DigestMismatch {
                    context: Context {
                        operation: "read blob".into(),
                        host: self.name,
                        repository: String::new(),
                    },
                    expected: self.digest,
                    actual,
                }));
            }
        });
        futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        })
        .boxed()
    }
}

/// Reads exactly `len` bytes, into memory that need not be cleared first.
fn read_chunk(file: &File, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(len);
    while chunk.len() < len {
        let at = offset + chunk.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut chunk), at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocation may have more room than was asked for.
    chunk.truncate(len);
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use std::io::Write;

    fn slice(content: &[u8], digest: Digest) -> FileSlice {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(content).unwrap();
        file.write_all(b"after").unwrap();
        let extent = Extent { offset: 6, len: content.len() as u64 };
        FileSlice::new(Arc::new(file), "x".into(), extent, digest, "oci:x".into())
    }

    #[tokio::test]
    async fn a_blob_is_read_in_place_and_checked() {
        let content = vec![7; 3 * CHUNK as usize / 2];
        let right = Digest::of(&content);
        let blob = slice(&content, right.clone());
        assert_eq!(blob.clone().read_all().await.unwrap(), content);
        let chunks: Vec<Bytes> = blob.into_stream(Check::BySource).try_collect().await.unwrap();
        assert_eq!(chunks.concat(), content);

        let wrong = slice(&content, Digest::of(b"other"));
        assert!(matches!(wrong.clone().read_all().await, Err(SourceError::Corrupt { .. })));
        let error = wrong.clone().into_stream(Check::BySource).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        assert!(wrong.into_stream(Check::ByCaller).try_collect::<Vec<_>>().await.is_ok());

        let empty = slice(b"", Digest::of(b""));
        assert!(empty.into_stream(Check::BySource).try_collect::<Vec<_>>().await.unwrap().is_empty());
    }
}
