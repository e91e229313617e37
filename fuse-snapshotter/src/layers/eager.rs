//! Layers that are not read lazily: fetched and unpacked before the mount.
//!
//! Root unpacks them into directories that overlayfs stacks. Other users can neither make devices nor mount overlayfs,
//! so for them the layer is indexed here and now, and served from a local copy through the same tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use registry::{Descriptor, FileBlob};
use soci_index::source::{Check, ImageSource};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;
use ztoc::{BuildOptions, Builder, Built, Compression, Ztoc};

use super::lazy::Prepared;
use crate::fetch::{LayerSource, LayerTable, LazyLayer};
use crate::unpack::{self, LayerFormat, UnpackError};

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackFailure {
    /// It has a hard link to a file that it does not have itself.
    #[error("{0}")]
    LinkBelow(UnpackError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Unpacks a layer into `target` in the form that overlayfs stacks, and checks its `diff_id`. Returns the directories
/// that the layer does not mention itself. If the caller goes away, unpacking ends soon.
pub(crate) async fn unpack(
    source: &dyn ImageSource,
    layer: &Descriptor,
    diff_id: Option<&str>,
    target: impl AsRef<Path> + Send + 'static,
    options: unpack::Options,
) -> Result<Vec<PathBuf>, UnpackFailure> {
    let other = |error: &dyn std::fmt::Display| UnpackFailure::Other(error.to_string());
    let format = LayerFormat::from_media_type(&layer.media_type);
    let stream = source.open_blob(layer, Check::BySource).await.map_err(|error| other(&error))?;
    // A thread cannot be stopped, but what it reads can end.
    let stop = CancellationToken::new();
    let stream = Box::pin(stream.map_err(std::io::Error::other).take_until(stop.clone().cancelled_owned()));
    let _stop = stop.drop_guard();
    let reader = SyncIoBridge::new(StreamReader::new(stream));
    let unpacking =
        tokio::task::spawn_blocking(move || unpack::unpack(reader, format, target.as_ref(), &options));
    let unpacked = unpacking.await.map_err(|error| other(&error))?.map_err(|error| match error {
        UnpackError::HardLink { .. } => UnpackFailure::LinkBelow(error),
        error => other(&error),
    })?;
    match diff_id {
        Some(diff_id) if diff_id != unpacked.diff_id => Err(UnpackFailure::Other(format!(
            "its uncompressed digest is {}, but the image says {diff_id}",
            unpacked.diff_id
        ))),
        _ => Ok(unpacked.implied),
    }
}

/// Fetches a layer, indexes it on the way, and prepares to serve it from the copy.
pub(crate) async fn index(
    source: &dyn ImageSource,
    layer: &Descriptor,
    directory: &Path,
    position: usize,
    shared: &LayerSource,
) -> Result<Prepared, String> {
    let compression = match LayerFormat::from_media_type(&layer.media_type) {
        Some(LayerFormat::Gzip) => Compression::Gzip,
        Some(LayerFormat::Tar) => Compression::Uncompressed,
        Some(LayerFormat::Zstd) => Compression::Zstd,
        None => return Err(format!("layers of type {} cannot be served from a copy", layer.media_type)),
    };
    let text = |error: std::io::Error| format!("cannot keep the layer: {error}");
    // An image may have the same layer twice.
    let path = directory.join(format!("copy-{position}"));
    let mut copy = tokio::fs::File::create(&path).await.map_err(text)?;
    let mut stream = source.open_blob(layer, Check::BySource).await.map_err(|error| error.to_string())?;
    let (chunks, queue) = tokio::sync::mpsc::channel(4);
    let building = tokio::task::spawn_blocking(move || build(queue, compression));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| error.to_string())?;
        copy.write_all(&chunk).await.map_err(text)?;
        if chunks.send(chunk).await.is_err() {
            // The builder has given up; its error says why.
            break;
        }
    }
    drop(chunks);
    copy.flush().await.map_err(text)?;
    let built = building.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let file = std::fs::File::open(&path).map_err(text)?;
    let reader = FileBlob::section(Arc::new(file), path, 0, layer.size, layer.digest.clone());
    let ztoc_path = directory.join(format!("copy-{position}.ztoc"));
    tokio::fs::write(&ztoc_path, &built.bytes).await.map_err(text)?;
    let ztoc = Ztoc::parse(built.bytes).map_err(|error| error.to_string())?;
    let table = LayerTable::new(&ztoc).map_err(|error| error.to_string())?;
    let hex = registry::Digest::from_sha256(&built.digest.0);
    let cache = shared.cache().layer(layer.digest.hex(), hex.hex(), table.block_count());
    let cache = cache.map_err(|error| error.to_string())?;
    let file = std::fs::File::open(&ztoc_path).map_err(text)?;
    Ok(Prepared { layer: LazyLayer::new(Arc::new(reader), table, cache, file, shared.clone()), ztoc })
}

fn build(
    mut queue: tokio::sync::mpsc::Receiver<Bytes>,
    compression: Compression,
) -> Result<Built, ztoc::BuildError> {
    // The copy is at hand: a frame that can only be read from its start costs no network.
    let mut builder =
        Builder::new(BuildOptions { accept_single_frame: true, ..BuildOptions::new(compression) })?;
    while let Some(chunk) = queue.blocking_recv() {
        builder.push(chunk)?;
    }
    builder.finish()
}
