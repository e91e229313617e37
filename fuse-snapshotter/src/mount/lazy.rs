//! Preparing a layer for lazy reading.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use registry::{BlobReader, Descriptor};
use ztoc::Ztoc;

use super::{Origin, artifacts};
use crate::fetch::{LayerSource, LayerTable, LazyLayer};

/// Bytes of the blob that are read to see that it can be: the redirect is resolved and a connection opened by that,
/// while the zTOC is on its way.
const PROBE: u64 = 2;

/// A layer that is ready to be read, and its zTOC, which the tree is still to be made from.
pub(super) struct Prepared {
    pub(super) layer: Arc<LazyLayer>,
    pub(super) ztoc: Ztoc,
}

/// Prepares a layer that has a zTOC in the index; an error says why it cannot be read lazily.
pub(super) async fn prepare(
    origin: &Origin,
    shared: &LayerSource,
    layer: &Descriptor,
    ztoc: &Descriptor,
) -> Result<Prepared, String> {
    let ((bytes, kept), reader) =
        tokio::try_join!(artifacts::ztoc(origin, shared.cache(), &layer.digest, ztoc), async {
            open(origin, layer).await.map_err(|error| format!("cannot read the layer: {error}"))
        })?;
    let shared = shared.clone();
    let (expected, ztoc_digest) = (layer.size, ztoc.digest.clone());
    // Parsing is work for milliseconds, but of the processor.
    let prepared =
        tokio::task::spawn_blocking(move || assemble(bytes, kept, &ztoc_digest, reader, expected, shared));
    prepared.await.map_err(|error| error.to_string())?
}

/// Opens the layer's blob and reads a little of it.
async fn open(origin: &Origin, layer: &Descriptor) -> Result<Arc<dyn BlobReader>, String> {
    let reader: Arc<dyn BlobReader> = match &origin.registry {
        Some((client, repository)) => {
            // A server that sends everything before a range would be asked for everything with each span.
            let blob = client.blob_reader(repository, layer.digest.clone(), layer.size);
            Arc::new(blob.with_max_skip(1 << 20))
        }
        None => origin.source.blob_reader(layer).await.map_err(|error| error.to_string())?,
    };
    let probe = reader.read_range(0..PROBE.min(reader.size())).await.map_err(|error| error.to_string())?;
    probe.try_for_each(|_| async { Ok(()) }).await.map_err(|error| error.to_string())?;
    Ok(reader)
}

fn assemble(
    bytes: Bytes,
    kept: bool,
    ztoc_digest: &registry::Digest,
    reader: Arc<dyn BlobReader>,
    size: u64,
    shared: LayerSource,
) -> Result<Prepared, String> {
    let ztoc = Ztoc::parse(bytes).map_err(|error| error.to_string())?;
    if ztoc.compressed_size() != size {
        return Err(format!("the zTOC is for a layer of {} bytes, not {size}", ztoc.compressed_size()));
    }
    let table = LayerTable::new(&ztoc).map_err(|error| error.to_string())?;
    let cache = shared
        .cache()
        .layer(reader.digest().hex(), ztoc_digest.hex(), table.block_count())
        .map_err(|error| error.to_string())?;
    // Only now, since a directory that no open layer has may be removed to make room.
    let file = artifacts::keep(cache.directory(), ztoc.bytes(), kept)
        .map_err(|error| format!("cannot keep the zTOC in {}: {error}", cache.directory().display()))?;
    let layer = LazyLayer::new(reader, table, cache, file, shared);
    Ok(Prepared { layer, ztoc })
}
