//! A block of the cache.

/// Size of a cache block in bytes: a page, the unit in which the kernel asks.
pub const BLOCK_SIZE: u64 = 4096;

/// The same as a length in memory.
pub(super) const BLOCK: usize = BLOCK_SIZE as usize;

/// Contents of a block.
pub(super) type Block = [u8; BLOCK];

/// The number of the block that holds a byte of the stream.
pub(super) fn number_of(offset: u64) -> u32 {
    u32::try_from(offset / BLOCK_SIZE).unwrap_or(u32::MAX)
}
