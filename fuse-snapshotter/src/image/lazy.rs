//! Preparing a layer for lazy reading.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use registry::{BlobReader, Client, Descriptor, Digest, RegistryBlob, Repository};
use soci_index::source::SourceError;
use ztoc::Ztoc;

use super::blob_opener::Opened;
use super::origin::ImageOrigin;
use super::sources::{Sources, name_of};
use crate::content::{FetchContext, LayerTable, LazyLayer};
use crate::mount::artifacts;

/// Bytes of the blob that are read to see that it can be: the redirect is resolved and a connection opened by that,
/// while the zTOC is on its way.
const PROBE: u64 = 2;

/// Most bytes in front of a range that may be skipped, for servers that ignore ranges.
const MAX_SKIP: u64 = 1 << 20;

/// A layer that is ready to be read, and its zTOC, which the tree is still to be made from.
pub(crate) struct Prepared {
    pub(crate) layer: Arc<LazyLayer>,
    pub(crate) ztoc: Ztoc,
}

/// Prepares a layer that has a zTOC in the index; an error says why it cannot be read lazily.
pub(crate) async fn prepare(
    origin: &ImageOrigin,
    shared: &FetchContext,
    layer: &Descriptor,
    ztoc: &Descriptor,
    opened: &Opened,
) -> Result<Prepared, String> {
    let ((bytes, kept), reader) =
        tokio::try_join!(artifacts::ztoc(origin, shared.cache(), &layer.digest, ztoc), async {
            opened.open(origin, origin.registry.as_ref().map(|(client, _)| client), layer).await
        })?;
    // Until here the layer could be unpacked instead.
    let reader = match &origin.registry {
        Some((client, repository)) => {
            let patience = client.read_retry_policy().clone();
            Arc::new(Sources::new(&name_of(repository), reader, patience))
        }
        None => reader,
    };
    let shared = shared.clone();
    let (expected, ztoc_digest) = (layer.size, ztoc.digest.clone());
    // Parsing is work for milliseconds, but of the processor.
    let prepared =
        tokio::task::spawn_blocking(move || assemble(bytes, kept, &ztoc_digest, reader, expected, shared));
    prepared.await.map_err(|error| error.to_string())?
}

/// Opens the layer's blob and reads a little of it. `client`: who reads it, if it is in a registry.
pub(super) async fn open(
    origin: &ImageOrigin,
    client: Option<&Client>,
    layer: &Descriptor,
) -> Result<Arc<dyn BlobReader>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read the layer: {error}");
    let reader: Arc<dyn BlobReader> = match (&origin.registry, client) {
        (Some((_, repository)), Some(client)) => {
            Arc::new(registry_blob(client, repository, layer.digest.clone(), layer.size))
        }
        _ => origin.source.blob_reader(layer).await.map_err(|error| failed(&error))?,
    };
    let probe = reader.read_range(0..PROBE.min(reader.size())).await.map_err(|error| failed(&error))?;
    probe.try_for_each(|_| async { Ok(()) }).await.map_err(|error| failed(&error))?;
    Ok(reader)
}

/// The layer's blob for ranged reads, of which nothing has been read yet.
pub(super) async fn reader(
    origin: &ImageOrigin,
    layer: &Descriptor,
) -> Result<Arc<dyn BlobReader>, SourceError> {
    match &origin.registry {
        Some((client, repository)) => {
            Ok(Arc::new(registry_blob(client, repository, layer.digest.clone(), layer.size)))
        }
        None => origin.source.blob_reader(layer).await,
    }
}

/// A layer's blob in a registry, for ranged reads.
pub(super) fn registry_blob(
    client: &Client,
    repository: &Repository,
    digest: Digest,
    size: u64,
) -> RegistryBlob {
    // A server that sends everything before a range would be asked for everything with each span.
    client.blob_reader(repository, digest, size).with_max_skip(MAX_SKIP)
}

fn assemble(
    bytes: Bytes,
    kept: bool,
    ztoc_digest: &Digest,
    reader: Arc<dyn BlobReader>,
    size: u64,
    shared: FetchContext,
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
