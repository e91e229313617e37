//! System calls that no crate wraps.

mod idmap;

pub use idmap::id_mapped_clone;
