//! The way out when ranges cannot be trusted: fetch the whole layer, verify it, and read from the copy.

use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use registry::{BlobReader, FileBlob};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::base::lock::lock;
use crate::content::FetchError;
use crate::content::layer::{LazyLayer, count};

/// How long a layer that does not have its digest, or finds no room, is not fetched again: with every read that fails,
/// all of it would be.
const GIVE_UP: Duration = Duration::from_secs(60);

impl LazyLayer {
    /// A reader of a verified local copy of the layer, which all reads use from now on. Fetched once.
    pub(crate) async fn fetch_whole(&self) -> Result<Arc<dyn BlobReader>, FetchError> {
        self.whole.get_or_try_init(|| self.download()).await?;
        Ok(self.reader())
    }

    /// Whether there is a verified local copy.
    pub(crate) fn has_whole(&self) -> bool {
        self.whole.initialized()
    }

    async fn download(&self) -> Result<(), FetchError> {
        if let Some((when, error)) = &*lock(&self.refused_whole)
            && when.elapsed() < GIVE_UP
        {
            return Err(error.clone());
        }
        let downloaded = self.copy_whole().await;
        if let Err(error @ (FetchError::Corrupt { .. } | FetchError::Cache(_))) = &downloaded {
            *lock(&self.refused_whole) = Some((Instant::now(), error.clone()));
        }
        downloaded
    }

    async fn copy_whole(&self) -> Result<(), FetchError> {
        let _permit = self.schedule().connection().await;
        let reader = self.reader();
        tracing::warn!(layer = %self.digest(), bytes = reader.size(), "fetching the whole layer to verify it");
        let path = self.directory().join("layer");
        let copy = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
        // The copy lives as long as it is open: nobody has to clean it up, not even after a crash.
        std::fs::remove_file(&path)?;
        let mut file = tokio::fs::File::from_std(copy.try_clone()?);
        let mut hasher = Sha256::new();
        let mut body = reader.read_range(0..reader.size()).await?;
        count(&self.counters.requests, 1);
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            count(&self.counters.fetched_bytes, chunk.len() as u64);
            hasher.update(&chunk);
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        let found = registry::Digest::from_sha256(&hasher.finalize().into());
        if found != *self.digest() {
            return Err(FetchError::Corrupt {
                layer: self.digest().to_string(),
                span: 0,
                reason: format!("the whole layer has digest {found}"),
            });
        }
        self.replace_reader(Arc::new(FileBlob::section(Arc::new(copy), path, 0, reader.size(), found)));
        Ok(())
    }
}
