//! System calls that no crate wraps, or not safely.

mod idmap;
mod namespace;

pub use idmap::id_mapped_clone;
pub use namespace::enter_user_namespace;
