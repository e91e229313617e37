//! Lazily loaded container images.
//!
//! Data flows one way: a zTOC becomes a [`ztoc::Ztoc`], the zTOCs of a chain of layers are merged
//! into one [`tree::Tree`], and [`fs::Forest`] serves it: metadata from the tree, contents from a
//! [`cache::LayerCache`] that [`fetch::LazyLayer`] fills span by span through ranged reads. [`fuse`] is a thin
//! adapter from the kernel's requests to [`fs::Forest`], and [`mount`] puts an image together from a registry. [`erofs`] is the
//! other way to the kernel: metadata as an image that it reads by itself, and only contents through FUSE.

pub mod cache;
pub mod config;
pub mod erofs;
pub mod fetch;
pub mod fs;
pub mod fuse;
pub mod grpc;
pub mod images;
pub mod keychain;
pub mod layers;
pub mod logging;
pub mod metrics;
pub mod mount;
pub mod node;
pub mod prefetch;
pub mod snapshots;
mod startup;
pub mod status;
pub mod sys;
pub mod tree;
pub mod unpack;

mod durable;
mod text;
