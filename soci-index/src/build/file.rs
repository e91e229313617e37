//! A zTOC of a bare layer file, without an image.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use registry::Digest;
use ztoc::{BuildError, Builder, Built, Compression};

use super::options::{BuildOptions, layer_record};
use crate::manifest::{MAX_ZTOC_SIZE, ZtocKind};
use crate::store::{Store, StoreError};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Why a file gives no zTOC.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("cannot read the layer: {0}")]
    Read(#[from] std::io::Error),
    /// It cannot be indexed.
    #[error("the layer cannot be indexed: {0}")]
    Build(#[from] BuildError),
    /// Nobody would accept the result.
    #[error("its zTOC would have more than {MAX_ZTOC_SIZE} bytes; a larger --span-size makes it smaller")]
    TooLarge,
}

/// Builds the zTOC of a layer that is read from its first byte to its last, in one pass. How it is compressed is told from
/// its first bytes: gzip, Zstandard, or an uncompressed tar.
/// Also gives what it was.
///
/// # Errors
/// When it cannot be read or indexed; see [`FileError`].
pub fn build_file(layer: &mut dyn Read, options: &BuildOptions) -> Result<(Built, Compression), FileError> {
    let mut chunk = read_chunk(layer)?;
    let compression = Compression::sniff(&chunk);
    let mut builder = Builder::new(ztoc::BuildOptions {
        span_size: options.span_size,
        build_tool_identifier: options.tool.clone(),
        ..ztoc::BuildOptions::new(compression)
    })?;
    while !chunk.is_empty() {
        builder.push(chunk)?;
        if builder.memory() > 3 * MAX_ZTOC_SIZE {
            return Err(FileError::TooLarge);
        }
        chunk = read_chunk(layer)?;
    }
    let built = builder.finish()?;
    if built.bytes.len() as u64 > MAX_ZTOC_SIZE {
        return Err(FileError::TooLarge);
    }
    Ok((built, compression))
}

/// Stores a zTOC that was built here with these options, so that commands and later builds find it.
///
/// # Errors
/// When the store cannot be written.
pub async fn store_ztoc(
    store: &Store,
    built: &Built,
    compression: Compression,
    options: &BuildOptions,
) -> Result<Digest, StoreError> {
    let _lease = store.lease().await?;
    let digest = store.put(built.bytes.clone()).await?;
    let layer = Digest::from_sha256(&built.blob_digest.0);
    let mut record = layer_record(options, digest.clone(), built.bytes.len() as u64, layer);
    ZtocKind::of(compression).media_type().clone_into(&mut record.media_type);
    record.stamp();
    store.record(vec![record]).await?;
    Ok(digest)
}

/// The next bytes; none at the end. A pipe gives few at a time, which are gathered.
fn read_chunk(layer: &mut dyn Read) -> std::io::Result<Bytes> {
    let mut chunk = BytesMut::zeroed(CHUNK);
    let mut filled = 0;
    while filled < CHUNK {
        match layer.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(chunk.freeze())
}
