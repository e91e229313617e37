//! System calls that no crate wraps, or not safely, and tables of the kernel.

mod fd;
mod idmap;
mod memory;
mod mountinfo;
mod namespace;

pub(crate) use fd::redirect;
pub use idmap::id_mapped_clone;
pub use memory::give_back;
pub use mountinfo::MountLine;
pub use namespace::enter_user_namespace;
