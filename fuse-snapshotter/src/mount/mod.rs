//! Mounting an image as one merged, lazily read tree.
//!
//! `image` finds the SOCI index and prepares each layer: lazily if it has a zTOC, else by unpacking it beside the
//! mount. `stack` turns runs of consecutive lazy layers into one tree each, mounted by EROFS or by FUSE, and, where there are
//! unpacked layers too, stacks all of them with overlayfs. `report` says at the end what was fetched of what.
//!
//! A failure of laziness is not a failure of the mount: a layer whose zTOC is missing, broken or false is unpacked, and
//! the report says why.

pub(crate) mod artifacts;
mod image;
mod overlay_stack;
mod report;
mod workspace;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry::Digest;
use soci_index::image::PlatformChoice;
use tokio::runtime::Handle;

pub use crate::fronts::Front;
pub use report::{LayerReport, Report};

use crate::content::FetchContext;
use crate::content::cache::{CacheError, CacheRoot};
use crate::image::ImageOrigin;
use overlay_stack::Stack;
use workspace::Workspace;

/// Requests for layer contents that may be under way at once. Latency is what costs, so there are more than a fast link
/// needs; a registry is not hammered by that many.
const CONNECTIONS: usize = 8;

/// What to mount, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Read layers lazily where possible. Without it every layer is unpacked, to compare.
    pub lazy: bool,
    /// Use this index and no other.
    pub index: Option<Digest>,
    /// Of an image for several platforms, the one to mount.
    pub platform: PlatformChoice,
    /// Fetch the rest of the image while nobody reads.
    pub background: bool,
    /// Root directory: the cache and unpacked layers go there.
    pub root: PathBuf,
    /// Largest size of the cache, in bytes.
    pub cache_size: u64,
    /// Whether other users may look into the mount. Root's mounts are always open, as `/` is.
    pub allow_other: bool,
    /// What serves lazily read layers to the kernel.
    pub front: Front,
}

/// Why an image cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountImageError {
    /// The image or its index cannot be read.
    #[error(transparent)]
    Source(#[from] soci_index::source::SourceError),
    /// The index that was asked for.
    #[error(transparent)]
    Index(#[from] soci_index::discover::DiscoverError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// FUSE.
    #[error(transparent)]
    Fuse(#[from] crate::fronts::fuse::MountError),
    /// EROFS, if nothing else will do.
    #[error("cannot mount by EROFS (--front auto or fuse can)")]
    Erofs(#[from] crate::fronts::erofs::ErofsError),
    /// A layer that can neither be read lazily nor unpacked.
    #[error("cannot unpack layer {digest}: {reason}")]
    Unpack {
        /// Digest of the layer.
        digest: Digest,
        /// What went wrong.
        reason: String,
    },
    /// A system call.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> MountImageError {
    let path = path.to_owned();
    move |source| MountImageError::Io { operation, path, source }
}

/// A mounted image. Dropping it unmounts.
#[derive(Debug)]
pub struct MountedImage {
    // In this order: what is stacked on top goes first, the files under it last.
    stack: Stack,
    layers: Vec<image::Layer>,
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
        let shared = FetchContext::new(cache, CONNECTIONS);
        let image = image::Image::find(origin, options).await?;
        let mut layers = image.prepare(origin, &shared, &workspace).await?;
        let mut front = options.front;
        let stack = loop {
            match Stack::mount(&layers, &target, &workspace, options, front, Handle::current()) {
                Ok(stack) => break stack,
                Err(overlay_stack::StackError::Erofs(error)) if front == Front::Auto => {
                    tracing::info!(%error, "mounting by FUSE");
                    front = Front::Fuse;
                }
                // The zTOCs make sense one by one but not together: that layer is unpacked instead.
                Err(overlay_stack::StackError::Tree { layer, reason }) => {
                    image.make_eager(origin, &shared, &workspace, &mut layers, layer, reason).await?;
                }
                Err(overlay_stack::StackError::Erofs(error) | overlay_stack::StackError::Mount(error)) => {
                    return Err(*error);
                }
            }
        };
        // The tree has what it needs of the zTOCs.
        layers.iter_mut().for_each(image::Layer::forget_ztoc);
        crate::base::sys::give_back();
        let background = if options.background {
            let lazy = layers.iter().filter_map(image::Layer::lazy).cloned();
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
        let layers = self.layers.iter().map(image::Layer::report).collect();
        Report::new(self.index.clone(), layers, &self.stack, self.started.elapsed())
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
