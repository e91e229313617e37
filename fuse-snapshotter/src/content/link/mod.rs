//! The way to a registry: what it can carry, which requests go first, and how a range is read over it.
//!
//! [`Link::read`](links::Link::read) reads a range from the first of some [`sources`] that answers. Whether the link is
//! long or short is its own affair: the [`estimate`] says so, and `read` makes one request of a range or
//! [chunks](chunked_range) of it, which wait for [slots](request_slots) by their [`priority`] and are
//! [hedged](hedged_chunk). Fetches that no reader waits for take turns ([`schedule`]).

pub(crate) mod ask;
mod chunked_range;
pub(crate) mod estimate;
mod hedged_chunk;
mod idle_cpu;
pub(crate) mod links;
pub(crate) mod priority;
pub(crate) mod read;
mod request_slots;
pub(crate) mod schedule;
pub(crate) mod sources;
