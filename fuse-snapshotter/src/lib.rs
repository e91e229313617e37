//! Lazily loaded container images.
//!
//! The rooms, from the lowest up; each uses only rooms above it in this list:
//!
//! * [`base`]: locks, durable files, system calls, metrics.
//! * [`content`]: the bytes of layers that are read lazily: trees, the cache, and what fills it.
//! * [`fronts`]: what the kernel talks to: FUSE and EROFS over one forest of trees.
//! * [`image`]: an image made ready: its index, its zTOCs, its layers opened or unpacked.
//! * [`foresight`]: what a container will read: recorded, or forecast.
//! * [`mount`]: an image as a mount, without containerd.
//! * [`snapshotter`]: what containerd asks of a snapshotter.
//! * [`daemon`]: configuration, logins, gRPC, status around the snapshotter.
//!
//! `scripts/check` refuses imports that run the other way.

pub mod base;
pub mod content;
pub mod daemon;
pub mod foresight;
pub mod fronts;
pub mod image;
pub mod mount;
pub mod snapshotter;
