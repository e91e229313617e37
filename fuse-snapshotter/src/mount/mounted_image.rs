//! A mounted image.

use std::path::Path;
use std::sync::Arc;

use registry::Digest;
use tokio::runtime::Handle;

use super::error::{MountImageError, io_error};
use super::image::Image;
use super::layer::Layer;
use super::layer_maker::LayerMaker;
use super::options::Options;
use super::overlay_stack::{Stack, StackError};
use super::report::Report;
use super::workspace::Workspace;
use crate::content::FetchContext;
use crate::content::cache::{CacheError, CacheRoot};
use crate::fronts::Front;
use crate::image::{ImageOrigin, ZtocShelf};

/// Requests for layer contents that may be under way at once. Latency is what costs, so there are more than a fast link
/// needs; a registry is not hammered by that many.
const CONNECTIONS: usize = 8;

/// A mounted image. Dropping it unmounts.
#[derive(Debug)]
pub struct MountedImage {
    // In this order: what is stacked on top goes first, the files under it last.
    stack: Stack,
    layers: Vec<Layer>,
    index: Option<Digest>,
    background: Vec<tokio::task::JoinHandle<()>>,
    started: std::time::Instant,
    _workspace: Workspace,
}

impl MountedImage {
    /// Mounts an image at `target`, an existing directory.
    ///
    /// # Errors
    /// See [`MountImageError`].
    pub async fn mount(
        origin: &ImageOrigin,
        target: &Path,
        options: &Options,
    ) -> Result<Self, MountImageError> {
        let started = std::time::Instant::now();
        let target = target.canonicalize().map_err(io_error("find", target))?;
        let workspace = Workspace::create(&options.root)?;
        let cache = open_cache(options, &workspace)?;
        let shelf = Arc::new(ZtocShelf::beside(&cache));
        let shared = FetchContext::new(cache, CONNECTIONS);
        let image = Image::find(origin, options).await?;
        let maker =
            LayerMaker { origin, shared: &shared, shelf: &shelf, workspace: &workspace, image: &image };
        let mut layers = maker.make_all().await?;
        let mut front = options.front;
        let stack = loop {
            match Stack::mount(&layers, &target, &workspace, options, front, Handle::current()) {
                Ok(stack) => break stack,
                Err(StackError::Erofs(error)) if front == Front::Auto => {
                    tracing::info!(%error, "mounting by FUSE");
                    front = Front::Fuse;
                }
                // The zTOCs make sense one by one but not together: that layer is unpacked instead.
                Err(StackError::Tree { layer, why }) => {
                    layers[layer] = maker.make_eager(&layers[layer], layer, why).await?;
                }
                Err(StackError::Erofs(error) | StackError::Mount(error)) => return Err(*error),
            }
        };
        // The tree has what it needs of the zTOCs.
        layers.iter_mut().for_each(Layer::forget_ztoc);
        crate::base::sys::give_back();
        let background = if options.background {
            let lazy = layers.iter().filter_map(Layer::lazy).cloned();
            lazy.map(|layer| tokio::spawn(layer.fetch_in_background())).collect()
        } else {
            Vec::new()
        };
        Ok(Self { stack, layers, index: image.index_digest(), background, started, _workspace: workspace })
    }

    /// Whether the mount is gone, by whoever's hand.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stack.is_finished()
    }

    /// What has been fetched of what, until now.
    #[must_use]
    pub fn report(&self) -> Report {
        let layers = self.layers.iter().map(Layer::report).collect();
        Report::new(self.index.clone(), layers, self.stack.counts(), self.started.elapsed())
    }

    /// Unmounts.
    pub fn unmount(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.background.drain(..).for_each(|task| task.abort());
        self.stack.unmount();
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The shared cache; or, while another process has that one, a cache that lasts as long as this mount.
fn open_cache(options: &Options, workspace: &Workspace) -> Result<Arc<CacheRoot>, MountImageError> {
    let shared = options.root.join("cache");
    match CacheRoot::open(&shared, options.cache_size) {
        Ok(cache) => Ok(Arc::new(cache)),
        Err(CacheError::InUse(path)) => {
            tracing::warn!(cache = %path.display(), "another process has the cache; using one for this mount alone");
            Ok(Arc::new(CacheRoot::open(&workspace.path().join("cache"), options.cache_size)?))
        }
        Err(error) => Err(error.into()),
    }
}
