//! A layer's blob, in all the repositories that images which share the layer come from.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use registry::{BlobReader, ByteStream, Digest, Result};

/// Most repositories that are remembered for one layer. Each is worth a try, but not all of a hundred.
const MAX_SOURCES: usize = 8;

/// How long one of several repositories is waited for before the next is asked. Errors that pass are tried again
/// meanwhile.
const TURN: Duration = Duration::from_secs(10);

/// A blob that several repositories have. A repository may be deleted, or its credentials expire, while an image from
/// another one still uses the layer.
pub(super) struct Sources {
    digest: Digest,
    size: u64,
    /// Which worked last stands first.
    readers: RwLock<Vec<(String, Arc<dyn BlobReader>)>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Sources {
    pub(super) fn new(name: String, reader: Arc<dyn BlobReader>) -> Self {
        let (digest, size) = (reader.digest().clone(), reader.size());
        Self { digest, size, readers: RwLock::new(vec![(name, reader)]) }
    }

    /// Adds a repository that has just been seen to work, in front of the others.
    pub(super) fn add(&self, name: String, reader: Arc<dyn BlobReader>) {
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|(known, _)| *known != name);
        readers.insert(0, (name, reader));
        readers.truncate(MAX_SOURCES);
    }

    fn prefer(&self, name: &str) {
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = readers.iter().position(|(known, _)| known == name) {
            readers[..=position].rotate_right(1);
        }
    }
}

#[async_trait]
impl BlobReader for Sources {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> &Digest {
        &self.digest
    }

    async fn read_range(&self, range: Range<u64>) -> Result<ByteStream> {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut failed, mut silent) = (None, None);
        for (position, (name, reader)) in readers.iter().enumerate() {
            let reading = reader.read_range(range.clone());
            let read = match readers.len() {
                1 => Ok(reading.await),
                _ => tokio::time::timeout(TURN, reading).await,
            };
            match read {
                Ok(Ok(stream)) => {
                    if position > 0 {
                        self.prefer(name);
                    }
                    return Ok(stream);
                }
                Ok(Err(error)) => {
                    if readers.len() > 1 {
                        tracing::debug!(repository = %name, %error, "cannot read the layer there");
                    }
                    // The first one's error is the one of the repository that worked until now.
                    failed = failed.or(Some(error));
                }
                Err(_) => silent = silent.or(Some(reader)),
            }
        }
        // None of the others has it.
        if let Some(reader) = silent {
            return reader.read_range(range).await;
        }
        Err(failed.unwrap_or_else(|| registry::Error::RangeNotSatisfiable {
            context: registry::Context {
                operation: "read a layer".into(),
                host: String::new(),
                repository: String::new(),
            },
            start: range.start,
            end: range.end,
            size: self.size,
        }))
    }

    fn round_trip(&self) -> Option<Duration> {
        self.readers.read().unwrap_or_else(PoisonError::into_inner).first()?.1.round_trip()
    }
}
