//! The way out when ranges cannot be trusted: the whole layer is fetched and verified, and is read from the copy.

use std::fs::OpenOptions;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use registry::FileBlob;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;

use crate::base::lock::lock;
use crate::content::contents::LayerContents;
use crate::content::error::FetchError;
use crate::content::link::ask::Patience;
use crate::content::link::links::Link;
use crate::content::link::sources::Sources;

/// How long a layer that does not have its digest, or finds no room, is not fetched again: with every read that fails,
/// all of it would be.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Whether there is a verified local copy of a layer.
#[derive(Debug, Default)]
pub(super) struct WholeLayer {
    copied: OnceCell<()>,
    /// When the whole layer was found to be wrong, and how.
    refused: Mutex<Option<(Instant, FetchError)>>,
}

impl WholeLayer {
    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.copied.initialized()
    }

    /// Makes one, once.
    pub(super) async fn get(
        &self,
        copy: impl AsyncFnOnce() -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let copied = self.copied.get_or_try_init(async || {
            if let Some((when, error)) = &*lock(&self.refused)
                && when.elapsed() < GIVE_UP
            {
                return Err(error.clone());
            }
            let copied = copy().await;
            if let Err(error @ (FetchError::Corrupt { .. } | FetchError::Cache(_))) = &copied {
                *lock(&self.refused) = Some((Instant::now(), error.clone()));
            }
            copied
        });
        copied.await.copied()
    }
}

/// Copies and verifies a layer of `size` bytes; the copy is the first of its sources from then on. `came` counts bytes.
pub(super) async fn copy(
    contents: &LayerContents,
    link: &Link,
    sources: &Sources,
    size: u64,
    came: impl Fn(u64),
) -> Result<(), FetchError> {
    let (layer, _permit) = (contents.digest(), link.connection().await);
    tracing::warn!(%layer, bytes = size, "fetching the whole layer to verify it");
    let path = contents.directory().join("layer");
    let copy = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    // The copy lives as long as it is open: nobody has to clean it up, not even after a crash.
    std::fs::remove_file(&path)?;
    let mut file = tokio::fs::File::from_std(copy.try_clone()?);
    let mut hasher = Sha256::new();
    let (mut body, _) = link.ask(0..size, &sources.list(), Patience::Wait).await?;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        came(chunk.len() as u64);
        hasher.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    let found = registry::Digest::from_sha256(&hasher.finalize().into());
    if found != *layer {
        return Err(FetchError::Corrupt {
            layer: layer.to_string(),
            span: 0,
            reason: format!("the whole layer has digest {found}"),
        });
    }
    sources.put_local_first(Arc::new(FileBlob::section(Arc::new(copy), path, 0, size, found)));
    Ok(())
}
