//! The bytes of layers that are read lazily: no FUSE, no containerd.
//!
//! What happens to a read:
//!
//! 1. [`LazyLayer::try_read`] looks into the [`cache`] and answers from it, without waiting. That is the end of most
//!    reads.
//! 2. If something is missing, [`LazyLayer::read`] asks the layer's supplier for it and waits. The
//!    supplier finds the spans that hold the missing blocks. Each span has one flight at a time, however
//!    many readers want it, and neighbouring spans are one request.
//! 3. The link to the registry decides how the request goes out: before all that no reader waits for, in one piece
//!    if the registry is near, in chunks over several connections if it is far.
//! 4. A span is hashed and inflated while it arrives, and its tar headers are checked against the zTOC. It becomes
//!    visible in the cache once its digest matches. Readers of the first span of a request do not wait for the last
//!    one.
//! 5. The read looks into the cache once more, and answers.
//!
//! A span whose digest is wrong again and again, and a registry that does not do ranges, lead to the whole layer being
//! fetched, verified by its own digest, and read from the local copy. When the layer is gone from all repositories,
//! another image's layer with the same content may stand in.
//!
//! The parts:
//!
//! * [`tree`]: the directory tree of an image, merged from the zTOCs of its layers.
//! * [`cache`]: blocks of contents on the disk; `contents` says which files of a layer they are, and which files are
//!   refused.
//! * `supplier`: who brings bytes into the cache. Today that is `spans`.
//! * `link`: how bytes come from a registry, and whose come first.
//! * `policy`: what is fetched although no reader waits for it.
//! * `layer`: all of it put together, as the fronts see it; `context` is what all layers share.

pub mod cache;
mod contents;
mod context;
mod error;
mod flights;
mod layer;
mod link;
mod policy;
mod spans;
mod stats;
mod supplier;
pub mod tree;

#[cfg(test)]
pub(crate) mod tests;

pub use context::FetchContext;
pub use error::FetchError;
pub use layer::LazyLayer;
pub use link::links::Pulling;
pub use spans::table::{LayerTable, TableError};
pub(crate) use spans::twin::Twin;
pub use stats::LayerStats;
