//! What containerd has already: it downloads manifests and configurations, and the zTOCs of a version 2 index, before
//! it asks a snapshotter for anything.

use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{Descriptor, Digest};
use soci_index::containerd::{Containerd, Endpoint};
use soci_index::discover::Nearby;

use super::origin::LocalContent;
use crate::base::lock::lock;

/// containerd's content store, in one namespace.
#[derive(Debug)]
pub struct ContainerdContent {
    endpoint: Endpoint,
    address: PathBuf,
    /// The connection, until it fails.
    connected: Mutex<Option<Containerd>>,
}

impl ContainerdContent {
    /// The content store behind the socket `address`. Nothing is connected to yet.
    #[must_use]
    pub fn new(address: PathBuf, namespace: &str) -> Self {
        let endpoint = Endpoint::new(&address.to_string_lossy(), namespace);
        Self { endpoint, address, connected: Mutex::default() }
    }

    async fn containerd(&self) -> Option<Containerd> {
        if let Some(known) = lock(&self.connected).clone() {
            return Some(known);
        }
        // A socket that nobody listens on says so at once.
        match self.endpoint.connect().await {
            Ok(containerd) => {
                *lock(&self.connected) = Some(containerd.clone());
                Some(containerd)
            }
            Err(error) => {
                tracing::debug!(address = %self.address.display(), %error, "cannot look into containerd's content store");
                None
            }
        }
    }
}

#[async_trait]
impl LocalContent for ContainerdContent {
    async fn images(&self) -> Vec<(String, Descriptor)> {
        let Some(containerd) = self.containerd().await else { return Vec::new() };
        match containerd.images().await {
            Ok(images) => images.into_iter().map(|image| (image.name, image.target)).collect(),
            Err(error) => {
                tracing::debug!(%error, "cannot list containerd's images");
                *lock(&self.connected) = None;
                Vec::new()
            }
        }
    }
}

#[async_trait]
impl Nearby for ContainerdContent {
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        let containerd = self.containerd().await?;
        match containerd.content_bytes(digest, limit).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%digest, %error, "cannot read from containerd's content store");
                // containerd may have been restarted.
                *lock(&self.connected) = None;
                None
            }
        }
    }
}
