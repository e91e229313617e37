//! The snapshotter that containerd talks to.
//!
//! [`store`] remembers which snapshots there are, whose children they are and how each is served; [`filter`] is the
//! language in which clients ask for some of them.

pub mod filter;
pub mod store;
