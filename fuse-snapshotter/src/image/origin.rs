//! Where an image's parts come from.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{Client, Descriptor, Digest, Repository};
use soci_index::discover::Nearby;
use soci_index::manifest::MAX_ZTOC_SIZE;
use soci_index::source::ImageSource;
use soci_index::store::Store;

/// Content that this machine may have already, so that it need not be fetched. Whatever goes wrong is the same as not
/// having it.
#[async_trait]
pub trait LocalContent: Nearby + std::fmt::Debug + Send {
    /// Images that are there: their names, and what these stand for.
    async fn images(&self) -> Vec<(String, Descriptor)> {
        Vec::new()
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

/// Why something that an index names is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum FetchArtifactError {
    /// It is larger than anything of its kind may be.
    #[error("the {what} of {size} bytes is larger than {limit}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Size in bytes that the index gives.
        size: u64,
        /// Largest size in bytes.
        limit: u64,
    },
    /// The image is in no registry, and the local store does not have it.
    #[error("{what} {digest} is not in the local store")]
    NotInStore {
        /// What it is.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// The registry does not give it.
    #[error("cannot fetch the {what}: {error}")]
    Registry {
        /// What it is.
        what: &'static str,
        /// Why not.
        error: Box<registry::Error>,
    },
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
            && let Ok(bytes) = store.get(digest, limit).await
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
    pub(crate) async fn fetch_ztoc(&self, ztoc: &Descriptor) -> Result<Bytes, FetchArtifactError> {
        let (what, limit) = ("zTOC", MAX_ZTOC_SIZE);
        if ztoc.size > limit {
            return Err(FetchArtifactError::TooLarge { what, size: ztoc.size, limit });
        }
        self.fetch(what, ztoc, limit).await
    }

    /// The bytes of something that the index names, verified, if they are no more than `limit`.
    pub(crate) async fn fetch(
        &self,
        what: &'static str,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, FetchArtifactError> {
        if let Some(bytes) = self.local_content(&descriptor.digest, limit).await {
            return Ok(bytes);
        }
        let Some((client, repository)) = &self.registry else {
            return Err(FetchArtifactError::NotInStore { what, digest: descriptor.digest.clone() });
        };
        let fetched = client.blob_bytes(repository, descriptor, limit).await;
        fetched.map_err(|error| FetchArtifactError::Registry { what, error: Box::new(error) })
    }
}
