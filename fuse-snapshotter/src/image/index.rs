//! The search for an image's SOCI index: in its registry, then in the local artifact store.

use registry::Descriptor;
use soci_index::discover::{DiscoverError, FoundIndex, Wanted, find_index, find_local_index};
use soci_index::oci::ImageManifest;

use super::blob_opener::{BlobOpener, OpenedBlobs};
use super::origin::ImageOrigin;

/// An image whose index is looked for.
pub(crate) struct IndexSearch<'a> {
    /// The image's manifest.
    pub(crate) image: &'a Descriptor,
    /// What is in the manifest.
    pub(crate) manifest: &'a ImageManifest,
    /// Which index is good enough.
    pub(crate) wanted: &'a Wanted,
    /// Layers that are opened meanwhile.
    pub(crate) open: &'a [Descriptor],
    /// Layers smaller than this, in bytes, are not opened: they are not read lazily.
    pub(crate) min_layer_size: u64,
}

/// Why an image has no index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoIndex {
    /// Nobody knows one.
    #[error("there is no SOCI index for this image")]
    Unknown,
    /// The search failed.
    #[error(transparent)]
    Search(DiscoverError),
}

impl IndexSearch<'_> {
    /// Looks for the index, and opens layers meanwhile.
    pub(crate) async fn find(self, origin: &ImageOrigin) -> Result<(FoundIndex, OpenedBlobs), NoIndex> {
        let opener = BlobOpener::new(origin, self.open, self.min_layer_size);
        let found = match &origin.registry {
            Some((client, repository)) => {
                find_index(client, repository, self.image, self.manifest, self.wanted, &opener).await
            }
            None => Ok(None),
        };
        let why = match found {
            Ok(Some(found)) => return Ok((found, opener.opened())),
            Ok(None) => NoIndex::Unknown,
            Err(error) => NoIndex::Search(error),
        };
        // The store has what was built on this machine and not pushed; and all there is for an image outside a
        // registry.
        if let Some(store) = origin.store.as_ref().filter(|_| self.wanted.v1) {
            let explicit = self.wanted.explicit.as_ref();
            if let Ok(Some(local)) = find_local_index(store, self.image, self.manifest, explicit).await {
                return Ok((local, opener.opened()));
            }
        }
        Err(why)
    }
}
