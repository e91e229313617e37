//! What a lazy layer is put together from: a zTOC that was read and belongs to the layer, its tables, its cache.
//!
//! Both the daemon ([`super::OpenLayers`]) and a mount without a daemon ([`prepare`]) go through here.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use registry::Descriptor;
use ztoc::Ztoc;

use super::blob_opener::OpenedBlobs;
use super::layer_blob::OpenBlobError;
use super::layer_key::LayerKey;
use super::layer_numbers::NumberError;
use super::origin::{FetchArtifactError, ImageOrigin};
use super::sources::{Sources, name_of};
use super::ztocs::{ShelvedZtoc, TakeZtocError, ZtocShelf};
use crate::base::metrics::{LayerMetrics, Operation};
use crate::content::cache::{CacheError, LayerCache};
use crate::content::{FetchContext, LayerTable, LazyLayer, TableError};

/// Why a layer cannot be opened for lazy reading.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its zTOC is not on disk any more, or damaged.
    #[error("the stored zTOC {} of layer {} is lost; remove the image and pull it again", key.ztoc, key.layer)]
    Lost {
        /// The layer.
        key: LayerKey,
    },
    /// Its zTOC cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchArtifactError),
    /// Its blob cannot be read.
    #[error(transparent)]
    Blob(#[from] Arc<OpenBlobError>),
    /// The zTOC is for a layer of another size.
    #[error("the zTOC is for a layer of {expected} bytes, not {size}")]
    Size {
        /// Size in bytes that the zTOC gives.
        expected: u64,
        /// Size in bytes that the image gives.
        size: u64,
    },
    /// The zTOC makes no sense.
    #[error(transparent)]
    Ztoc(#[from] ztoc::Error),
    /// The zTOC claims what no layer can be like.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The recorded reference, or the registry's configuration.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The layer gets no number.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// The disk.
    #[error("cannot keep the zTOC in {}: {error}", directory.display())]
    Keep {
        /// Where it would have been.
        directory: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The task that opened it ended early.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

impl From<TakeZtocError> for OpenError {
    fn from(error: TakeZtocError) -> Self {
        match error {
            TakeZtocError::Fetch(error) => Self::Fetch(error),
            TakeZtocError::Task(error) => Self::Task(error),
        }
    }
}

/// A layer that is ready to be read, and its zTOC, which the tree is still to be made from.
pub(crate) struct PreparedLayer {
    pub(crate) layer: Arc<LazyLayer>,
    pub(crate) ztoc: Arc<Ztoc>,
}

/// Prepares a layer that has a zTOC in the index, for a mount that does not share it with others.
pub(crate) async fn prepare(
    origin: &ImageOrigin,
    shared: &FetchContext,
    shelf: &Arc<ZtocShelf>,
    layer: &Descriptor,
    ztoc: &Descriptor,
    opened: &OpenedBlobs,
) -> Result<PreparedLayer, OpenError> {
    let key = LayerKey { layer: layer.digest.clone(), ztoc: ztoc.digest.clone() };
    let client = origin.registry.as_ref().map(|(client, _)| client);
    let taking = async { Ok(shelf.take(origin, shared, &key, ztoc).await?) };
    let opening = async { Ok::<_, OpenError>(opened.open(origin, client, layer).await?) };
    let (ztoc, reader) = tokio::try_join!(taking, opening)?;
    // Until here the layer could be unpacked instead.
    let reader = match &origin.registry {
        Some((client, repository)) => {
            let patience = client.read_retry_policy().clone();
            Arc::new(Sources::new(&name_of(repository), reader, patience))
        }
        None => reader,
    };
    let (shared, shelf, size) = (shared.clone(), Arc::clone(shelf), layer.size);
    // Parsing is work for milliseconds, but of the processor.
    let preparing = tokio::task::spawn_blocking(move || {
        let parsed = ParsedZtoc::read(&shared, key, ztoc, size)?;
        let LayerParts { table, cache, file } = parsed.assemble(&shared, &shelf)?;
        let layer = LazyLayer::new(reader, table, cache, file, shared);
        Ok(PreparedLayer { layer, ztoc: parsed.ztoc })
    });
    preparing.await?
}

/// A zTOC that belongs to its layer, as far as can be seen without the layer.
pub(super) struct ParsedZtoc {
    pub(super) key: LayerKey,
    pub(super) ztoc: Arc<Ztoc>,
    /// Whether it was read from the shelf.
    stored: bool,
    metrics: Arc<LayerMetrics>,
}

/// What of a lazy layer does not depend on where it is read from.
pub(super) struct LayerParts {
    pub(super) table: LayerTable,
    pub(super) cache: Arc<LayerCache>,
    /// The zTOC, for the windows of its checkpoints.
    pub(super) file: File,
}

impl ParsedZtoc {
    /// Reads the zTOC of a layer of `size` bytes.
    pub(super) fn read(
        shared: &FetchContext,
        key: LayerKey,
        ztoc: ShelvedZtoc,
        size: u64,
    ) -> Result<Self, OpenError> {
        let metrics = shared.metrics().layer(&key.layer);
        let started = Instant::now();
        let parsed = Ztoc::parse(ztoc.bytes)?;
        metrics.observe(Operation::ZtocUnmarshal, started.elapsed());
        if parsed.compressed_size() != size {
            return Err(OpenError::Size { expected: parsed.compressed_size(), size });
        }
        Ok(Self { key, ztoc: Arc::new(parsed), stored: ztoc.stored, metrics })
    }

    /// Makes the tables, opens the cache, and keeps the zTOC.
    pub(super) fn assemble(&self, shared: &FetchContext, shelf: &ZtocShelf) -> Result<LayerParts, OpenError> {
        let started = Instant::now();
        let table = LayerTable::new(&self.ztoc)?;
        self.metrics.observe(Operation::InitMetadataStore, started.elapsed());
        let (layer, ztoc) = (self.key.layer.hex(), self.key.ztoc.hex());
        let cache = shared.cache().layer(layer, ztoc, table.block_count())?;
        // Only now, since a directory that no open layer has may be removed to make room.
        let kept = shelf.keep(&self.key, self.ztoc.bytes(), self.stored);
        let file =
            kept.map_err(|error| OpenError::Keep { directory: shelf.directory_of(&self.key), error })?;
        Ok(LayerParts { table, cache, file })
    }
}
