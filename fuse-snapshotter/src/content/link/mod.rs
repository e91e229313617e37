//! The way to a registry: what it can carry, which requests go first, and how a range is fetched over it.

pub(crate) mod chunked_range;
pub(crate) mod estimate;
pub(crate) mod hedged_chunk;
pub(crate) mod idle_cpu;
pub(crate) mod request_slots;
pub(crate) mod schedule;
