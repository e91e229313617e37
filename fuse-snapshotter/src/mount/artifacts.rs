//! Getting the index and the zTOCs: from the registry, or from the local store.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use registry::{Descriptor, Digest};
use soci_index::discover::{FoundIndex, Wanted, find_index, find_local_index};
use soci_index::manifest::MAX_ZTOC_SIZE;
use soci_index::oci::ImageManifest;

use super::MountImageError;
use crate::content::cache::CacheRoot;
use crate::image::{BlobOpener, ImageOrigin, Opened};

/// Finds the index of an image, and meanwhile opens its layers. What goes wrong is said, and then there is none: the image is unpacked. Only an index
/// that was asked for must be there.
pub(super) async fn index(
    origin: &ImageOrigin,
    image: &Descriptor,
    manifest: &ImageManifest,
    explicit: Option<&Digest>,
) -> Result<(Option<FoundIndex>, Opened), MountImageError> {
    let ahead = BlobOpener::new(origin, &manifest.layers, 0);
    let mut found = Ok(None);
    if let Some((client, repository)) = &origin.registry {
        found = find_index(client, repository, image, manifest, &Wanted::explicit(explicit.cloned()), &ahead)
            .await;
    }
    let opened = ahead.opened();
    // The store has what was built here and not pushed; and all there is for an image outside a registry.
    if let (Ok(None) | Err(_), Some(store)) = (&found, &origin.store)
        && let Ok(Some(local)) = find_local_index(store, image, manifest, explicit).await
    {
        return Ok((Some(local), opened));
    }
    match found {
        Ok(found) => Ok((found, opened)),
        Err(error) if explicit.is_some() => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "no valid SOCI index found");
            Ok((None, opened))
        }
    }
}

/// The zTOC of a layer: from the cache (then `true`), the store or the registry. Its digest has been verified.
pub(crate) async fn ztoc(
    origin: &ImageOrigin,
    cache: &CacheRoot,
    layer: &Digest,
    ztoc: &Descriptor,
) -> Result<(Bytes, bool), String> {
    if ztoc.size > MAX_ZTOC_SIZE {
        return Err(format!("the zTOC of {} bytes is larger than {MAX_ZTOC_SIZE}", ztoc.size));
    }
    let path = cache.layer_directory(layer.hex(), ztoc.digest.hex()).join("ztoc");
    if let Ok(bytes) = tokio::fs::read(&path).await
        && Digest::of(&bytes) == ztoc.digest
    {
        return Ok((bytes.into(), true));
    }
    Ok((origin.fetch_ztoc(ztoc).await?, false))
}

/// Makes names of temporary files differ.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Keeps a zTOC beside the cached blocks, where the windows of its checkpoints are read from. The file is there as a whole
/// or not at all. `kept`: `bytes` were read from there.
pub(crate) fn keep(directory: &Path, bytes: &[u8], kept: bool) -> std::io::Result<File> {
    let path = directory.join("ztoc");
    if !kept || !path.exists() {
        // An image may have the same layer twice, and both are prepared at once.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = directory.join(format!("ztoc.{}.{number}", std::process::id()));
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, &path)?;
    }
    File::open(path)
}
