//! Where an image's parts come from.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{Client, Descriptor, Digest, Repository};
use soci_index::discover::Nearby;
use soci_index::source::ImageSource;
use soci_index::store::Store;

/// Content that this machine may have already, so that it need not be fetched.
#[async_trait]
pub trait LocalContent: std::fmt::Debug + Send + Sync {
    /// The blob with this digest, verified, if it is there and at most `limit` bytes long. Whatever goes wrong is the same as
    /// not having it.
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes>;

    /// Images that are there: their names, and what these stand for.
    async fn images(&self) -> Vec<(String, Descriptor)> {
        Vec::new()
    }
}

#[async_trait]
impl LocalContent for Store {
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        Store::get(self, digest, limit).await.ok()
    }
}

/// Where an image comes from, and where its index may be, too.
#[derive(Clone)]
pub struct ImageOrigin {
    /// The image.
    pub source: Arc<dyn ImageSource>,
    /// The registry and the repository in it, for an image that is in one.
    pub registry: Option<(Client, Repository)>,
    /// The local artifact store.
    pub store: Option<Store>,
    /// Other places on this machine that are asked before the registry.
    pub local: Vec<Arc<dyn LocalContent>>,
}

#[async_trait]
impl Nearby for ImageOrigin {
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.local_content(digest, limit).await
    }
}

impl ImageOrigin {
    /// A small blob or a manifest from this machine, if it has it.
    pub(crate) async fn local_content(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        if let Some(store) = &self.store
            && let Some(bytes) = LocalContent::get(store, digest, limit).await
        {
            return Some(bytes);
        }
        for place in &self.local {
            if let Some(bytes) = place.get(digest, limit).await {
                tracing::debug!(%digest, ?place, "found on this machine");
                return Some(bytes);
            }
        }
        None
    }

    /// The bytes of a zTOC, verified.
    pub(crate) async fn fetch_ztoc(&self, ztoc: &Descriptor) -> Result<Bytes, String> {
        self.fetch("zTOC", ztoc, soci_index::manifest::MAX_ZTOC_SIZE).await
    }

    /// The bytes of something that the index names, verified, if they are no more than `limit`.
    pub(crate) async fn fetch(
        &self,
        what: &str,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, String> {
        if let Some(bytes) = self.local_content(&descriptor.digest, limit).await {
            return Ok(bytes);
        }
        let Some((client, repository)) = &self.registry else {
            return Err(format!("{what} {} is not in the local store", descriptor.digest));
        };
        let fetched = client.blob_bytes(repository, descriptor, limit).await;
        fetched.map_err(|error| format!("cannot fetch the {what}: {error}"))
    }
}
