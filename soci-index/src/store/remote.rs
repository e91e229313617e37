//! Blobs in containerd's content store, beside our own files or instead of them.
//!
//! The records stay in our database in either case: containerd knows nothing about spans and tools.

use bytes::Bytes;
use registry::{ByteStream, Descriptor, Digest};
use tokio::sync::OnceCell;

use super::error::StoreError;
use crate::containerd::{Containerd, ContainerdError, Endpoint, Opened, labels};
use crate::manifest::{CONFIG_BLOB, IndexManifest};

/// A containerd whose content counts as the store's.
#[derive(Debug)]
pub(super) struct Remote {
    endpoint: Endpoint,
    /// `None` once nobody has answered: whoever does not run containerd waits for it once at most.
    connected: OnceCell<Option<Containerd>>,
    /// Where new blobs go.
    writer: Option<Containerd>,
}

impl Remote {
    pub(super) fn reading(endpoint: Endpoint) -> Self {
        Self { endpoint, connected: OnceCell::new(), writer: None }
    }

    pub(super) fn writing(containerd: Containerd) -> Self {
        Self { endpoint: containerd.endpoint().clone(), connected: OnceCell::new(), writer: Some(containerd) }
    }

    /// Where new blobs go, if they go to containerd.
    pub(super) fn writer(&self) -> Option<&Containerd> {
        self.writer.as_ref()
    }

    /// containerd, if it answers.
    pub(super) async fn reader(&self) -> Option<&Containerd> {
        if self.writer.is_some() {
            return self.writer.as_ref();
        }
        let connect = || async {
            self.endpoint
                .connect()
                .await
                .inspect_err(|error| tracing::debug!(%error, "the store is without containerd"))
                .ok()
        };
        self.connected.get_or_init(connect).await.as_ref()
    }

    pub(super) async fn get(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, StoreError> {
        match self.reader().await {
            Some(containerd) => Ok(containerd.content_bytes(digest, limit).await?),
            None => Ok(None),
        }
    }

    pub(super) async fn stream(&self, blob: &Descriptor) -> Result<Option<ByteStream>, StoreError> {
        let Some(containerd) = self.reader().await else { return Ok(None) };
        match containerd.content_info(&blob.digest).await? {
            None => Ok(None),
            Some(info) if info.size != blob.size => {
                let problem = format!("has {} bytes instead of {}", info.size, blob.size);
                Err(ContainerdError::Damaged { digest: blob.digest.clone(), problem }.into())
            }
            Some(_) => Ok(Some(containerd.content_stream(&blob.digest, blob.size).await?)),
        }
    }

    /// Forgets the index `digest` of the image manifest `image`: takes the labels off that keep it, and deletes it. Its
    /// zTOCs follow when containerd collects what nothing refers to.
    pub(super) async fn forget(&self, digest: &Digest, image: &Digest) -> Result<(), StoreError> {
        let Some(containerd) = self.reader().await else { return Ok(()) };
        if containerd.content_info(digest).await?.is_none() {
            return Ok(());
        }
        let value = digest.to_string();
        let key = labels::soci_index(digest);
        if containerd.content_info(image).await?.is_some_and(|info| info.labels.contains_key(&key)) {
            containerd.label_content(image, labels::Labels::from([(key, String::new())])).await?;
        }
        for image in containerd.images().await? {
            let keeps = |(key, kept): (&String, &String)| {
                (key.starts_with(labels::SOCI_INDEX) && *kept == value).then(|| (key.clone(), String::new()))
            };
            let keys: labels::Labels = image.labels.iter().filter_map(keeps).collect();
            if !keys.is_empty() {
                containerd.label_image(&image, keys).await?;
            }
        }
        containerd.delete_content(digest).await?;
        Ok(())
    }
}

/// Stores bytes in containerd under their digest.
pub(super) async fn put(containerd: &Containerd, bytes: Bytes) -> Result<Digest, StoreError> {
    let name = Digest::of(&bytes).to_string();
    Ok(containerd.put_content(&name, bytes, labels::Labels::new()).await?)
}

/// Stores an index manifest with its config blob in containerd. The zTOCs are there. The image's manifest keeps it from
/// then on: its labels outlive another pull of the image, which those of the image's record do not.
pub(super) async fn put_index(
    containerd: &Containerd,
    manifest: &IndexManifest,
) -> Result<Bytes, StoreError> {
    put(containerd, Bytes::from_static(CONFIG_BLOB)).await?;
    let bytes = manifest.encode();
    let digest = Digest::of(&bytes);
    let children = labels::of_soci_index(manifest);
    containerd.put_content(digest.as_str(), bytes.clone(), children).await?;
    if let Some(subject) = &manifest.subject {
        let keep = labels::Labels::from([(labels::soci_index(&digest), digest.to_string())]);
        containerd.label_content(&subject.digest, keep).await?;
    }
    Ok(bytes)
}

/// Whether a blob is in containerd; takes it under the lease if it is.
pub(super) async fn adopt(containerd: &Containerd, blob: &Descriptor) -> Result<bool, StoreError> {
    if containerd.content_info(&blob.digest).await?.is_none() {
        return Ok(false);
    }
    Ok(matches!(containerd.open_writer(blob.digest.as_str(), blob).await?, Opened::There))
}
