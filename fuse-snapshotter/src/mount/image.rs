//! An image that is to be mounted, and its index.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use registry::{Descriptor, Digest};
use soci_index::discover::{FoundIndex, Wanted};
use soci_index::image::select;
use soci_index::oci::ImageManifest;
use tokio_util::task::AbortOnDropHandle;

use super::error::MountImageError;
use super::options::Options;
use crate::image::index::{IndexSearch, NoIndex};
use crate::image::{ImageOrigin, OpenedBlobs};

/// An image and, if there is one, its index.
pub(super) struct Image {
    pub(super) manifest: ImageManifest,
    pub(super) index: Option<FoundIndex>,
    /// Digests of the uncompressed layers, on their way: only layers that are unpacked need them.
    pub(super) diff_ids: Shared<BoxFuture<'static, Vec<String>>>,
    /// Layers that were opened while the index was looked for.
    pub(super) opened: OpenedBlobs,
}

impl Image {
    /// Reads the manifest, and finds the index.
    pub(super) async fn find(origin: &ImageOrigin, options: &Options) -> Result<Self, MountImageError> {
        let root = origin.source.root().await?;
        let chosen = select(&*origin.source, &root, &options.platform).await?;
        // `select` gives at least one, or an error.
        let descriptor = chosen.into_iter().next().map_or(root, |chosen| chosen.descriptor);
        let manifest = origin.source.image_manifest(&descriptor).await?;
        let diff_ids = diff_ids_of(origin, &manifest);
        let found = if options.lazy {
            find_index(origin, &descriptor, &manifest, options.index.as_ref()).await?
        } else {
            None
        };
        match &found {
            Some((index, _)) => {
                tracing::info!(digest = %index.digest, layers = index.covered, "using SOCI index")
            }
            None => tracing::info!("no valid SOCI index found; the image is unpacked"),
        }
        let (index, opened) = found.unzip();
        Ok(Self { manifest, index, diff_ids, opened: opened.unwrap_or_default() })
    }

    pub(super) fn index_digest(&self) -> Option<Digest> {
        self.index.as_ref().map(|index| index.digest.clone())
    }
}

/// Finds the index of an image, and meanwhile opens its layers. What goes wrong is said, and then there is none: the
/// image is unpacked. Only an index that was asked for must be there.
async fn find_index(
    origin: &ImageOrigin,
    image: &Descriptor,
    manifest: &ImageManifest,
    explicit: Option<&Digest>,
) -> Result<Option<(FoundIndex, OpenedBlobs)>, MountImageError> {
    let wanted = Wanted::explicit(explicit.cloned());
    let search = IndexSearch { image, manifest, wanted: &wanted, open: &manifest.layers, min_layer_size: 0 };
    match search.find(origin).await {
        Ok(found) => Ok(Some(found)),
        Err(NoIndex::Unknown) => Ok(None),
        Err(NoIndex::Search(error)) if explicit.is_some() => Err(error.into()),
        Err(NoIndex::Search(error)) => {
            tracing::warn!(%error, "no valid SOCI index found");
            Ok(None)
        }
    }
}

/// Begins to read the digests of the uncompressed layers; none if the configuration cannot be read, which other checks
/// report.
fn diff_ids_of(origin: &ImageOrigin, manifest: &ImageManifest) -> Shared<BoxFuture<'static, Vec<String>>> {
    let (source, config) = (Arc::clone(&origin.source), manifest.config.clone());
    let reading = tokio::spawn(async move {
        source.image_config(&config).await.map(|config| config.rootfs.diff_ids).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the image's configuration");
            Vec::new()
        })
    });
    AbortOnDropHandle::new(reading).map(Result::unwrap_or_default).boxed().shared()
}
