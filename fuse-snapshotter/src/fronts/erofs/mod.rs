//! Trees whose names and attributes the kernel serves itself: an EROFS image without contents, over lazily read layers.
//!
//! With FUSE, the kernel asks user space for all that it has not cached, and FUSE's page cache consists of single
//! pages. Here the kernel gets all metadata at once: `image` writes a [tree](crate::content::tree::Tree) as an
//! EROFS image of names and attributes alone, and the image is mounted from its file (Linux 6.12 and later).
//! Look-ups, listings, attributes, links and opens never leave the kernel then, and pages are cached in large
//! folios.
//!
//! Contents are on other devices, one for each layer. A device is a file that FUSE serves (`blobs`): the stream in
//! which the [cache](crate::content::cache::LayerCache) stores the layer, where each file begins at a block. A
//! block of EROFS is therefore a block of the cache, and a read of a device is a read of one file of the image.
//!
//! The FUSE file system with the devices is not attached anywhere. Only EROFS holds it, so it ends with the last
//! user of the mount. If this process is killed, reads fail, and the mount is left until somebody unmounts it.

mod blobs;
mod context;
mod error;
mod format;
mod image;
mod mount;

#[cfg(test)]
mod tests;

pub use error::ErofsError;
pub use mount::mount_tree;
