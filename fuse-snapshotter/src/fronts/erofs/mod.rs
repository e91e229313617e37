//! Trees that the kernel serves by itself: an EROFS image without contents over lazily read layers.
//!
//! What FUSE serves costs a round trip to user space for whatever the kernel has not cached, and FUSE's page cache consists of
//! single pages. So here the kernel gets all metadata at once: `image` writes a [tree](crate::content::tree::Tree) as an EROFS image of
//! nothing but names and attributes, which is mounted from the file that it is (Linux 6.12 and later). Look-ups, listings,
//! attributes, links and opens never leave the kernel then, and pages are cached in large folios.
//!
//! Contents are on other devices, one for each layer, and these are files that FUSE serves (`blobs`): the streams in which the
//! [cache](crate::content::cache::LayerCache) has each file of the layer begin at a block. So a block of EROFS is one of the cache, a
//! read of a device is a read of one file of the image, and it goes the way that all reads go: from the cache, or fetched.
//!
//! The FUSE file system with the devices is not attached anywhere. EROFS holds it, and nobody else: it ends with the last user
//! of the mount. If the process is killed, reads fail, and what is left is a mount that anybody can take away.

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
