//! Making the layers of an image ready, each in its own way.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use registry::Descriptor;

use super::error::{MountImageError, WhyNotUnpacked, io_error};
use super::image::Image;
use super::layer::{Layer, LayerContent};
use super::workspace::Workspace;
use crate::content::FetchContext;
use crate::image::assemble::prepare;
use crate::image::{ImageOrigin, UnpackFailure, WhyNotLazy, ZtocShelf, eager};

/// Layers that are prepared at the same time. Preparing waits for the network most of the time.
const PARALLEL: usize = 16;

/// Makes the layers of an image ready.
pub(super) struct LayerMaker<'a> {
    pub(super) origin: &'a ImageOrigin,
    pub(super) shared: &'a FetchContext,
    pub(super) shelf: &'a Arc<ZtocShelf>,
    pub(super) workspace: &'a Workspace,
    pub(super) image: &'a Image,
}

impl LayerMaker<'_> {
    /// Makes all layers ready, bottom first.
    pub(super) async fn make_all(&self) -> Result<Vec<Layer>, MountImageError> {
        stream::iter(self.image.manifest.layers.iter().enumerate())
            .map(|(position, layer)| self.make(position, layer))
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    async fn make(&self, position: usize, layer: &Descriptor) -> Result<Layer, MountImageError> {
        let ztoc = self.image.index.as_ref().map(|index| index.manifest.ztoc_of(&layer.digest));
        let why = match ztoc {
            None => WhyNotLazy::NoIndex,
            Some(None) => WhyNotLazy::NoZtoc,
            Some(Some(ztoc)) => {
                let opened = &self.image.opened;
                match prepare(self.origin, self.shared, self.shelf, layer, ztoc.descriptor, opened).await {
                    Ok(prepared) => {
                        let content = LayerContent::Lazy(prepared.into());
                        return Ok(Layer { descriptor: layer.clone(), content });
                    }
                    Err(error) => {
                        tracing::warn!(layer = %layer.digest, reason = %error, "the layer cannot be read lazily");
                        error.into()
                    }
                }
            }
        };
        self.unpack(position, layer, why, true).await
    }

    /// Unpacks a layer, or serves it from a copy if that cannot be and `may_copy`.
    async fn unpack(
        &self,
        position: usize,
        layer: &Descriptor,
        why: WhyNotLazy,
        may_copy: bool,
    ) -> Result<Layer, MountImageError> {
        let failed = |reason: WhyNotUnpacked| MountImageError::Unpack {
            digest: layer.digest.clone(),
            reason: Box::new(reason),
        };
        let mut not_unpacked = None;
        if rustix::process::geteuid().is_root() {
            let directory = self.workspace.directory(&position.to_string())?;
            let diff_ids = self.image.diff_ids.clone().await;
            let diff_id = diff_ids.get(position).map(String::as_str);
            let target = directory.clone();
            match eager::unpack(self.origin, layer, None, diff_id, target, Default::default()).await {
                Ok(implied) => {
                    let content = LayerContent::Unpacked { directory, implied, why };
                    return Ok(Layer { descriptor: layer.clone(), content });
                }
                // A layer with hard links to files of the layers below cannot be unpacked by itself. It joins the tree
                // of those layers from a copy.
                Err(error @ UnpackFailure::LinkBelow(_)) if may_copy => {
                    tracing::info!(layer = %layer.digest, %error, "serving the layer from a copy");
                    std::fs::remove_dir_all(&directory).map_err(io_error("remove", &directory))?;
                    not_unpacked = Some(error);
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        if !may_copy {
            return Err(failed(why.into()));
        }
        let (source, directory) = (&*self.origin.source, self.workspace.path());
        let copied = eager::index(source, layer, directory, position, self.shared).await;
        let tree = copied.map_err(|error| failed(error.into()))?.into();
        Ok(Layer { descriptor: layer.clone(), content: LayerContent::Copied { tree, why, not_unpacked } })
    }

    /// Unpacks a layer whose zTOC turned out to make no sense.
    pub(super) async fn make_eager(
        &self,
        layer: &Layer,
        position: usize,
        why: WhyNotLazy,
    ) -> Result<Layer, MountImageError> {
        let descriptor = layer.descriptor.clone();
        tracing::warn!(layer = %descriptor.digest, reason = %why, "the layer cannot be read lazily");
        // What is a copy already has nothing left to fall back on.
        let may_copy = matches!(layer.content, LayerContent::Lazy(_));
        self.unpack(position, &descriptor, why, may_copy).await
    }
}
