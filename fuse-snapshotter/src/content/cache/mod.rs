//! The persistent cache of layer contents.
//!
//! ```text
//! ROOT/lock                              held by the process that owns the cache
//! ROOT/<layer hex>-<zTOC hex>/data       contents, sparse: each file starts at a 4 KiB boundary
//! ROOT/<layer hex>-<zTOC hex>/blocks     one 32-bit word a block: 0 absent, else its CRC-32C with bit 0 set
//! ROOT/<layer hex>-<zTOC hex>/ztoc       the zTOC, for the windows of its checkpoints
//! ```
//!
//! The key is the pair of layer and zTOC, shared by all images that have both: ranged reads are never checked
//! against the layer's digest, so a cache keyed by the layer alone would serve what one image's lying zTOC makes
//! of a public layer to every other image.
//!
//! A disk that is full or fails costs the cache, not the read: what it does not take is kept in memory while readers
//! wait for it (`memory`), and room is made below the limit (`disk`).
//!
//! Nothing is synced: a block from before the process started is checked against its CRC on first use, so
//! whatever a power failure loses or tears is simply fetched again.

mod block;
mod block_ranges;
mod blocks;
mod disk;
mod error;
mod evict;
mod layer;
mod memory;
mod publish;
mod root;
mod usage;
mod writer;

#[cfg(test)]
mod tests;

pub use block::BLOCK_SIZE;
pub(crate) use block_ranges::BlockRanges;
pub use error::CacheError;
pub use layer::LayerCache;
pub(crate) use layer::Pin;
pub use root::CacheRoot;
pub use writer::ContentWriter;

/// The regions of a layer that hold something.
#[cfg(test)]
fn layer_regions_for_tests(layer: &LayerCache) -> Vec<u32> {
    layer.regions().map(|(_, region, _)| region).collect()
}
