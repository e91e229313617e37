//! Layers that are not read lazily: fetched and unpacked before the mount.
//!
//! Root unpacks them into directories that overlayfs stacks. Other users can neither make devices nor mount overlayfs,
//! so for them the layer is indexed here and now, and served from a local copy through the same tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use registry::{Descriptor, FileBlob};
use soci_index::source::{Check, ImageSource, SourceError};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use ztoc::{BuildOptions, Builder, Built, Compression, Ztoc};

use super::assemble::PreparedLayer;
use super::layer_blob;
use super::origin::ImageOrigin;
use super::pipeline;
use super::unpack::{self, LayerFormat, UnpackError};
use crate::content::cache::CacheError;
use crate::content::{FetchContext, LayerTable, LazyLayer, TableError};

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackFailure {
    /// It has a hard link to a file that it does not have itself.
    #[error("{0}")]
    LinkBelow(UnpackError),
    /// It is another layer than the image says.
    #[error("its uncompressed digest is {actual}, but the image says {expected}")]
    DiffId {
        /// The digest of what was unpacked.
        actual: String,
        /// The digest in the image's configuration.
        expected: String,
    },
    /// Its bytes could not be read, or make no sense.
    #[error("{0}")]
    Unreadable(UnpackError),
    /// Its zTOC has spans that are too large to be inflated at once, or belongs to another layer.
    #[error("its spans cannot be inflated in memory")]
    Spans,
    /// The layer asks for what cannot be done, or the file system refuses it.
    #[error("{0}")]
    Refused(UnpackError),
    /// Its blob cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What was unpacked in one way could not be removed for the next.
    #[error("{failure}; cannot try again: {error}")]
    Emptying {
        /// Why the first way failed.
        failure: Box<UnpackFailure>,
        /// What went wrong then.
        error: std::io::Error,
    },
    /// The task that unpacked it ended early.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// Why a layer cannot be served from a local copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Nobody knows how to read it.
    #[error("layers of type {media_type} cannot be served from a copy")]
    MediaType {
        /// What the image says that it is.
        media_type: String,
    },
    /// The disk.
    #[error("cannot keep the layer: {0}")]
    Keep(std::io::Error),
    /// Its blob cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its blob cannot be read.
    #[error(transparent)]
    Read(#[from] registry::Error),
    /// It cannot be indexed.
    #[error(transparent)]
    Build(#[from] ztoc::BuildError),
    /// The zTOC that was just made makes no sense.
    #[error(transparent)]
    Ztoc(#[from] ztoc::Error),
    /// The zTOC that was just made claims what no layer can be like.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The task that indexed it ended early.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// How the bytes of a layer are fetched and inflated, fastest first.
enum Way {
    /// From all checkpoints of a zTOC at once.
    Spans(Arc<Ztoc>),
    /// From its start, by several ranged requests at a time.
    Ranges,
    /// By one request: for servers that do not do ranges.
    Stream,
}

/// Unpacks a layer into `target`, an empty directory, in the form that overlayfs stacks, and checks its `diff_id`. With
/// a zTOC, which need not be right, it is inflated on all processors. Returns the directories that the layer does not
/// mention itself. If the caller goes away, unpacking ends soon.
pub(crate) async fn unpack(
    origin: &ImageOrigin,
    layer: &Descriptor,
    ztoc: Option<Arc<Ztoc>>,
    diff_id: Option<&str>,
    target: impl AsRef<Path> + Clone + Send + 'static,
    options: unpack::Options,
) -> Result<Vec<PathBuf>, UnpackFailure> {
    // Neither ranges nor what a zTOC makes of them are verified on the way, so there must be a digest in the end.
    let fast = ztoc.map(Way::Spans).into_iter().chain([Way::Ranges]).filter(|_| diff_id.is_some());
    for way in fast {
        let by_ztoc = matches!(way, Way::Spans(_));
        let failure = match unpack_by(way, origin, layer, diff_id, target.clone(), &options).await {
            Err(failure @ (UnpackFailure::Unreadable(_) | UnpackFailure::Spans)) => failure,
            Err(failure @ UnpackFailure::DiffId { .. }) if by_ztoc => failure,
            other => return other,
        };
        tracing::debug!(layer = %layer.digest, %failure, "unpacking in another way");
        let emptied = target.clone();
        let emptying = tokio::task::spawn_blocking(move || empty(emptied.as_ref()));
        let emptied = emptying.await.map_err(std::io::Error::other).and_then(|emptied| emptied);
        emptied.map_err(|error| UnpackFailure::Emptying { failure: Box::new(failure), error })?;
    }
    unpack_by(Way::Stream, origin, layer, diff_id, target, &options).await
}

async fn unpack_by(
    way: Way,
    origin: &ImageOrigin,
    layer: &Descriptor,
    diff_id: Option<&str>,
    target: impl AsRef<Path> + Send + 'static,
    options: &unpack::Options,
) -> Result<Vec<PathBuf>, UnpackFailure> {
    let format = LayerFormat::from_media_type(&layer.media_type);
    // A thread cannot be stopped, but what it reads can end.
    let stop = CancellationToken::new();
    let uncompressed = match way {
        Way::Spans(ztoc) => {
            let reader = layer_blob::reader(origin, layer).await?;
            pipeline::inflate_spans(reader, ztoc, stop.clone()).ok_or(UnpackFailure::Spans)?
        }
        Way::Ranges => {
            let reader = layer_blob::reader(origin, layer).await?;
            pipeline::inflate_stream(pipeline::ranges(reader), format, stop.clone())
        }
        Way::Stream => {
            let stream = origin.source.open_blob(layer, Check::BySource).await?;
            pipeline::inflate_stream(stream, format, stop.clone())
        }
    };
    let _stop = stop.drop_guard();
    let options = options.clone();
    let unpacking =
        tokio::task::spawn_blocking(move || unpack::unpack_digested(uncompressed, target.as_ref(), &options));
    let unpacked = unpacking.await?.map_err(|error| match error {
        UnpackError::HardLink { .. } => UnpackFailure::LinkBelow(error),
        UnpackError::Read { .. } | UnpackError::Archive { .. } => UnpackFailure::Unreadable(error),
        error => UnpackFailure::Refused(error),
    })?;
    match diff_id {
        Some(diff_id) if diff_id != unpacked.diff_id => {
            Err(UnpackFailure::DiffId { actual: unpacked.diff_id, expected: diff_id.to_owned() })
        }
        _ => Ok(unpacked.implied),
    }
}

/// Removes what is in a directory.
fn empty(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Fetches a layer, indexes it on the way, and prepares to serve it from the copy.
pub(crate) async fn index(
    source: &dyn ImageSource,
    layer: &Descriptor,
    directory: &Path,
    position: usize,
    shared: &FetchContext,
) -> Result<PreparedLayer, CopyError> {
    let compression = match LayerFormat::from_media_type(&layer.media_type) {
        Some(LayerFormat::Gzip) => Compression::Gzip,
        Some(LayerFormat::Tar) => Compression::Uncompressed,
        Some(LayerFormat::Zstd) => Compression::Zstd,
        None => return Err(CopyError::MediaType { media_type: layer.media_type.clone() }),
    };
    // An image may have the same layer twice.
    let path = directory.join(format!("copy-{position}"));
    let mut copy = tokio::fs::File::create(&path).await.map_err(CopyError::Keep)?;
    let mut stream = source.open_blob(layer, Check::BySource).await?;
    let (chunks, queue) = tokio::sync::mpsc::channel(4);
    let building = tokio::task::spawn_blocking(move || build(queue, compression));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        copy.write_all(&chunk).await.map_err(CopyError::Keep)?;
        if chunks.send(chunk).await.is_err() {
            // The builder has given up; its error says why.
            break;
        }
    }
    drop(chunks);
    copy.flush().await.map_err(CopyError::Keep)?;
    let built = building.await??;
    let file = std::fs::File::open(&path).map_err(CopyError::Keep)?;
    let reader = FileBlob::section(Arc::new(file), path, 0, layer.size, layer.digest.clone());
    let ztoc_path = directory.join(format!("copy-{position}.ztoc"));
    tokio::fs::write(&ztoc_path, &built.bytes).await.map_err(CopyError::Keep)?;
    let ztoc = Arc::new(Ztoc::parse(built.bytes)?);
    let table = LayerTable::new(&ztoc)?;
    let hex = registry::Digest::from_sha256(&built.digest.0);
    let cache = shared.cache().layer(layer.digest.hex(), hex.hex(), table.block_count())?;
    let file = std::fs::File::open(&ztoc_path).map_err(CopyError::Keep)?;
    let layer = LazyLayer::new(Arc::new(reader), table, cache, file, shared.clone());
    Ok(PreparedLayer { layer, ztoc })
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
