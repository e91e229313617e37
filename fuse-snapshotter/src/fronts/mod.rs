//! What the kernel talks to: a merged tree becomes a file system here.
//!
//! * [`forest`]: the file system itself, over plain Rust types. It knows neither FUSE nor EROFS.
//! * [`fuse`]: the kernel asks this process for everything.
//! * [`erofs`]: the kernel has names and attributes, and asks this process for contents only.
//!
//! Both are served by a FUSE device. `session` opens it, makes the INIT exchange and serves it, as separate steps;
//! `reads`, `errno` and `stats` answer and count requests. [`Mounted`] is what comes of it, and [`mount_tree`]
//! chooses between the two.

pub mod erofs;
mod errno;
pub mod forest;
mod front;
pub mod fuse;
pub(crate) mod mount_point;
mod mounted;
mod reads;
mod session;
mod stats;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::content::LazyLayer;
use crate::content::tree::Tree;
use erofs::ErofsError;
use forest::{AddTreeError, Forest};
use fuse::{FuseOptions, MountError};

pub use front::Front;
pub use mounted::Mounted;
pub use stats::FuseStats;

/// A merged tree, and where it is to be mounted.
#[derive(Debug)]
pub struct TreeMount<'a> {
    /// The tree.
    pub tree: Tree,
    /// Its layers, bottom first.
    pub layers: Vec<Arc<LazyLayer>>,
    /// An existing directory.
    pub path: &'a Path,
    /// A file for the image of the metadata, if EROFS serves them. An earlier attempt may have left it.
    pub image: &'a Path,
}

/// Why a tree cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// It has more than inode numbers have room for.
    #[error(transparent)]
    Tree(#[from] AddTreeError),
    /// FUSE does not do it.
    #[error(transparent)]
    Fuse(#[from] MountError),
    /// EROFS does not do it, and nothing else was wanted.
    #[error(transparent)]
    Erofs(#[from] ErofsError),
    /// The image that an earlier attempt has left.
    #[error("cannot remove {}: {source}", path.display())]
    OldImage {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Mounts a tree by the front that is wanted, or by FUSE if EROFS cannot do it and need not.
///
/// # Errors
/// See [`FrontError`]. Nothing is left mounted then.
pub fn mount_tree(
    mount: TreeMount<'_>,
    front: Front,
    options: FuseOptions,
    runtime: &Handle,
) -> Result<Mounted, FrontError> {
    if front != Front::Fuse {
        match mount_by_erofs(&mount, options.threads, runtime) {
            Ok(mounted) => return Ok(mounted),
            Err(FrontError::Erofs(error)) if front == Front::Auto => {
                // It may have filled the disk, which the cache needs.
                let _ = std::fs::remove_file(mount.image);
                tracing::info!(%error, "mounting by FUSE");
            }
            Err(error) => return Err(error),
        }
    }
    let forest = Arc::new(Forest::single(mount.tree, mount.layers)?);
    Ok(fuse::mount_forest(&forest, mount.path, options, runtime.clone())?)
}

fn mount_by_erofs(mount: &TreeMount<'_>, threads: usize, runtime: &Handle) -> Result<Mounted, FrontError> {
    let TreeMount { tree, layers, path, image } = mount;
    // An attempt before this one may have left it, and may still be coming down with it.
    if let Err(source) = std::fs::remove_file(image)
        && source.kind() != std::io::ErrorKind::NotFound
    {
        return Err(FrontError::OldImage { path: image.to_path_buf(), source });
    }
    Ok(erofs::mount_tree(tree, layers.clone(), image, path, threads, runtime.clone())?)
}
