//! The way to a registry: what it can carry, which requests go first, and how a range is fetched over it.

mod chunked_range;
mod estimate;
mod hedged_chunk;
mod idle_cpu;
pub(crate) mod request_slots;
pub(crate) mod schedule;
