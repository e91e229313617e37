//! An image's layers, each made ready in its own way.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use registry::{Descriptor, Digest};
use soci_index::discover::FoundIndex;
use soci_index::image::select;
use soci_index::oci::ImageManifest;
use tokio_util::task::AbortOnDropHandle;
use ztoc::Ztoc;

use super::report::{LayerReport, Mode};
use super::workspace::Workspace;
use super::{MountImageError, Options, artifacts, io_error};
use crate::content::{FetchContext, LazyLayer};
use crate::image::{ImageOrigin, Opened, eager, lazy};

/// Layers that are prepared at the same time. Preparing waits for the network most of the time.
const PARALLEL: usize = 16;

/// An image and, if there is one, its index.
pub(super) struct Image {
    manifest: ImageManifest,
    index: Option<FoundIndex>,
    /// Digests of the uncompressed layers, on their way: only layers that are unpacked need them.
    diff_ids: Shared<BoxFuture<'static, Vec<String>>>,
    /// Layers that were opened while the index was looked for.
    opened: Opened,
}

/// How a layer is served.
enum Content {
    Lazy {
        layer: Arc<LazyLayer>,
        ztoc: Option<Ztoc>,
    },
    /// In this directory, where these sub-directories are only implied.
    Unpacked {
        directory: PathBuf,
        implied: Vec<PathBuf>,
    },
}

/// One layer, ready to be mounted.
pub(super) struct Layer {
    descriptor: Descriptor,
    content: Content,
    /// Why it is not read lazily.
    reason: Option<String>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("digest", &self.descriptor.digest).finish_non_exhaustive()
    }
}

impl Layer {
    /// The layer, if its content is served by FUSE.
    pub(super) fn lazy(&self) -> Option<&Arc<LazyLayer>> {
        match &self.content {
            Content::Lazy { layer, .. } => Some(layer),
            Content::Unpacked { .. } => None,
        }
    }

    pub(super) fn ztoc(&self) -> Option<&Ztoc> {
        match &self.content {
            Content::Lazy { ztoc, .. } => ztoc.as_ref(),
            Content::Unpacked { .. } => None,
        }
    }

    pub(super) fn forget_ztoc(&mut self) {
        if let Content::Lazy { ztoc, .. } = &mut self.content {
            *ztoc = None;
        }
    }

    /// Where it was unpacked, and which of its directories it does not mention itself.
    pub(super) fn unpacked(&self) -> Option<(&PathBuf, &[PathBuf])> {
        match &self.content {
            Content::Unpacked { directory, implied } => Some((directory, implied)),
            Content::Lazy { .. } => None,
        }
    }

    pub(super) fn report(&self) -> LayerReport {
        let size = self.descriptor.size;
        let (mode, stats, spans) = match (&self.content, &self.reason) {
            (Content::Lazy { layer, .. }, None) => (Mode::Lazy, layer.stats(), layer.table().spans().len()),
            // Served by FUSE, but from a copy that was fetched beforehand.
            (Content::Lazy { .. }, Some(_)) => (Mode::Indexed, Default::default(), 0),
            (Content::Unpacked { .. }, _) => (Mode::Unpacked, Default::default(), 0),
        };
        LayerReport {
            digest: self.descriptor.digest.clone(),
            mode,
            reason: self.reason.clone(),
            size,
            fetched: if mode == Mode::Lazy { stats.fetched_bytes } else { size },
            requests: stats.requests,
            spans,
            fetched_spans: stats.fetched_spans,
            errors: stats.corrupt_spans + stats.refused_entries,
        }
    }
}

impl Image {
    /// Reads the manifest, and finds the index.
    pub(super) async fn find(origin: &ImageOrigin, options: &Options) -> Result<Self, MountImageError> {
        let root = origin.source.root().await?;
        let chosen = select(&*origin.source, &root, &options.platform).await?;
        // `select` gives at least one, or an error.
        let descriptor = chosen.into_iter().next().map_or(root, |chosen| chosen.descriptor);
        let manifest = origin.source.image_manifest(&descriptor).await?;
        let index = async {
            match options.lazy {
                true => artifacts::index(origin, &descriptor, &manifest, options.index.as_ref()).await,
                false => Ok((None, Opened::default())),
            }
        };
        let diff_ids = diff_ids_of(origin, &manifest);
        let (index, opened) = index.await?;
        match &index {
            Some(index) => tracing::info!(digest = %index.digest, layers = index.covered, "using SOCI index"),
            None => tracing::info!("no valid SOCI index found; the image is unpacked"),
        }
        Ok(Self { manifest, index, diff_ids, opened })
    }

    pub(super) fn index_digest(&self) -> Option<Digest> {
        self.index.as_ref().map(|index| index.digest.clone())
    }

    /// Makes all layers ready, bottom first.
    pub(super) async fn prepare(
        &self,
        origin: &ImageOrigin,
        shared: &FetchContext,
        workspace: &Workspace,
    ) -> Result<Vec<Layer>, MountImageError> {
        stream::iter(self.manifest.layers.iter().enumerate())
            .map(|(position, layer)| self.prepare_layer(origin, shared, workspace, position, layer))
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    async fn prepare_layer(
        &self,
        origin: &ImageOrigin,
        shared: &FetchContext,
        workspace: &Workspace,
        position: usize,
        layer: &Descriptor,
    ) -> Result<Layer, MountImageError> {
        let ztoc = self.index.as_ref().map(|index| index.manifest.ztoc_of(&layer.digest));
        let reason = match ztoc {
            None => "there is no SOCI index for this image".to_owned(),
            Some(None) => "no ztoc for layer".to_owned(),
            Some(Some(ztoc)) => {
                match lazy::prepare(origin, shared, layer, ztoc.descriptor, &self.opened).await {
                    Ok(prepared) => {
                        let content = Content::Lazy { layer: prepared.layer, ztoc: Some(prepared.ztoc) };
                        return Ok(Layer { descriptor: layer.clone(), content, reason: None });
                    }
                    Err(reason) => {
                        tracing::warn!(layer = %layer.digest, %reason, "the layer cannot be read lazily");
                        reason
                    }
                }
            }
        };
        self.unpack(origin, Some(shared), workspace, position, layer, reason).await
    }

    async fn unpack(
        &self,
        origin: &ImageOrigin,
        shared: Option<&FetchContext>,
        workspace: &Workspace,
        position: usize,
        layer: &Descriptor,
        reason: String,
    ) -> Result<Layer, MountImageError> {
        let failed = |reason| MountImageError::Unpack { digest: layer.digest.clone(), reason };
        let mut reason = reason;
        if rustix::process::geteuid().is_root() {
            let directory = workspace.directory(&position.to_string())?;
            let diff_ids = self.diff_ids.clone().await;
            let diff_id = diff_ids.get(position).map(String::as_str);
            match eager::unpack(origin, layer, None, diff_id, directory.clone(), Default::default()).await {
                Ok(implied) => {
                    let content = Content::Unpacked { directory, implied };
                    return Ok(Layer { descriptor: layer.clone(), content, reason: Some(reason) });
                }
                // A layer with hard links to files of the layers below cannot be unpacked by itself. It joins the tree of
                // those layers from a copy.
                Err(eager::UnpackFailure::LinkBelow(error)) if shared.is_some() => {
                    tracing::info!(layer = %layer.digest, %error, "serving the layer from a copy");
                    reason = format!("{reason}; {error}");
                    std::fs::remove_dir_all(&directory).map_err(io_error("remove", &directory))?;
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        let Some(shared) = shared else { return Err(failed(reason)) };
        let prepared =
            eager::index(&*origin.source, layer, workspace.path(), position, shared).await.map_err(failed)?;
        let content = Content::Lazy { layer: prepared.layer, ztoc: Some(prepared.ztoc) };
        Ok(Layer { descriptor: layer.clone(), content, reason: Some(reason) })
    }

    /// Unpacks a layer whose zTOC turned out to make no sense.
    pub(super) async fn make_eager(
        &self,
        origin: &ImageOrigin,
        shared: &FetchContext,
        workspace: &Workspace,
        layers: &mut [Layer],
        position: usize,
        reason: String,
    ) -> Result<(), MountImageError> {
        let descriptor = layers[position].descriptor.clone();
        tracing::warn!(layer = %descriptor.digest, %reason, "the layer cannot be read lazily");
        // What is a copy already has nothing left to fall back on.
        let shared = layers[position].reason.is_none().then_some(shared);
        layers[position] = self.unpack(origin, shared, workspace, position, &descriptor, reason).await?;
        Ok(())
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
