//! A layer's compressed blob, opened for ranged reads.

use std::sync::Arc;

use futures::TryStreamExt;
use registry::{BlobReader, Client, Descriptor, Digest, RegistryBlob, Repository};
use soci_index::source::SourceError;

use super::origin::ImageOrigin;

/// Bytes of the blob that are read to see that it can be: the redirect is resolved and a connection opened by that,
/// while the zTOC is on its way.
const PROBE: u64 = 2;

/// Most bytes in front of a range that may be skipped, for servers that ignore ranges.
const MAX_SKIP: u64 = 1 << 20;

/// Why a layer's blob cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBlobError {
    /// The image's source does not give it.
    #[error("cannot read the layer: {0}")]
    Source(SourceError),
    /// It cannot be read.
    #[error("cannot read the layer: {0}")]
    Read(registry::Error),
    /// The task that opened it ended early.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// Opens the layer's blob and reads a little of it. `client`: who reads it, if it is in a registry.
pub(super) async fn open(
    origin: &ImageOrigin,
    client: Option<&Client>,
    layer: &Descriptor,
) -> Result<Arc<dyn BlobReader>, OpenBlobError> {
    let reader: Arc<dyn BlobReader> = match (&origin.registry, client) {
        (Some((_, repository)), Some(client)) => {
            Arc::new(registry_blob(client, repository, layer.digest.clone(), layer.size))
        }
        _ => origin.source.blob_reader(layer).await.map_err(OpenBlobError::Source)?,
    };
    let probe = reader.read_range(0..PROBE.min(reader.size())).await.map_err(OpenBlobError::Read)?;
    probe.try_for_each(|_| async { Ok(()) }).await.map_err(OpenBlobError::Read)?;
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
