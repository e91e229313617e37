//! The kernel's side: FUSE requests, answered by a [`Forest`](crate::fronts::forest::Forest).
//!
//! A tree never changes, so the kernel may keep what it learns for as long as it likes, and is told so:
//! entries and attributes are valid for a day, symbolic links and directories are cached, files keep their pages,
//! and open and opendir are answered once with "not needed". Only the list of trees and the state files change.
//! No FUSE thread ever waits for the network: a read that misses the cache is finished by the async runtime.
//!
//! * `connection`: opens the device, mounts it, makes the INIT exchange, or takes over a device; then serves it.
//! * `negotiated`: what is agreed with the kernel in the INIT exchange.
//! * `adapter`: the kernel's requests. `attr`: attributes as the kernel wants them.
//! * `pages`: pages of files that the kernel is told to drop.

mod adapter;
mod attr;
mod connection;
pub(in crate::fronts) mod negotiated;
mod pages;

#[cfg(test)]
mod tests;

pub use connection::{Connection, FuseOptions, MountError, mount_forest};
pub use negotiated::Negotiated;
