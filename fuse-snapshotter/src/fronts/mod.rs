//! What the kernel talks to: the forest of merged trees, and the file systems that serve it.

pub mod erofs;
pub mod forest;
pub mod fuse;
