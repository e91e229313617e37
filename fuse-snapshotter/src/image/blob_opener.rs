//! Opening the layers of an image while its index is still being fetched.
//!
//! An image that has an index will most likely be read lazily, and then each layer's blob has to be read from once
//! before the layer is committed. Doing that beside the search for the index costs no round trip of its own: when the
//! zTOCs are asked for, redirects have been followed and connections are open. It is a guess, so it has a limit: for an
//! image without an index two bytes of each large layer were asked for.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use registry::{BlobReader, Client, Descriptor, Digest};
use soci_index::discover::Nearby;
use tokio_util::task::AbortOnDropHandle;

use super::layer_blob::{self, OpenBlobError};
use super::origin::ImageOrigin;

/// Layers of an image that are opened before it is known which of them have a zTOC: as many as the connections that a
/// client keeps. The largest are the most likely to have one.
const LIMIT: usize = 16;

type Opening = Shared<BoxFuture<'static, Result<Arc<dyn BlobReader>, Arc<OpenBlobError>>>>;

/// Layers that were opened ahead, or are being opened. Those still under way are given up when this is dropped.
#[derive(Clone, Default)]
pub(crate) struct OpenedBlobs(HashMap<Digest, Opening>);

impl std::fmt::Debug for OpenedBlobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl OpenedBlobs {
    /// Opens a layer of the origin, which may have been opened ahead.
    pub(super) async fn open(
        &self,
        origin: &ImageOrigin,
        client: Option<&Client>,
        layer: &Descriptor,
    ) -> Result<Arc<dyn BlobReader>, Arc<OpenBlobError>> {
        match self.0.get(&layer.digest) {
            Some(opening) => opening.clone().await,
            None => layer_blob::open(origin, client, layer).await.map_err(Arc::new),
        }
    }
}

/// What is at hand while an index is looked for. The first question about an index sets off the opening of layers.
pub(super) struct BlobOpener<'a> {
    origin: &'a ImageOrigin,
    layers: Vec<&'a Descriptor>,
    opened: OnceLock<OpenedBlobs>,
}

impl<'a> BlobOpener<'a> {
    /// Will open layers of the origin; those smaller than `min_size` bytes are not read lazily.
    pub(super) fn new(origin: &'a ImageOrigin, layers: &'a [Descriptor], min_size: u64) -> Self {
        let mut layers: Vec<_> = layers.iter().filter(|layer| layer.size >= min_size).collect();
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
        layers.truncate(LIMIT);
        Self { origin, layers, opened: OnceLock::new() }
    }

    /// The layers that were opened.
    pub(super) fn opened(self) -> OpenedBlobs {
        self.opened.into_inner().unwrap_or_default()
    }

    fn begin(&self) -> OpenedBlobs {
        let Some((client, _)) = &self.origin.registry else { return OpenedBlobs::default() };
        let open = |layer: &Descriptor| {
            let (origin, client, layer) = (self.origin.clone(), client.clone(), layer.clone());
            // In a task, so that it goes on while nobody waits for it.
            let task = tokio::spawn(async move { layer_blob::open(&origin, Some(&client), &layer).await });
            let task = AbortOnDropHandle::new(task);
            let opening = task.map(|done| done.unwrap_or_else(|error| Err(error.into())).map_err(Arc::new));
            opening.boxed().shared()
        };
        OpenedBlobs(self.layers.iter().map(|layer| (layer.digest.clone(), open(layer))).collect())
    }
}

#[async_trait]
impl Nearby for BlobOpener<'_> {
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.searching();
        self.origin.local_content(digest, limit).await
    }

    fn searching(&self) {
        self.opened.get_or_init(|| self.begin());
    }
}
