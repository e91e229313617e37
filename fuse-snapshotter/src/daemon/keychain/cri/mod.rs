//! Logins from Kubernetes' container runtime interface.
//!
//! kubelet is pointed at the snapshotter's socket (`--image-service-endpoint`). Every call of `runtime.v1.ImageService`
//! is passed on to containerd's socket as it is: HTTP/2 headers, message bytes, trailers. Nothing is decoded and encoded
//! again, so fields, methods and compression that this program has never heard of get through. Only `PullImage` and
//! `RemoveImage` are also looked into: the login that comes with an image is kept, in memory alone, until the image is
//! removed.

mod backend;
mod keychain;
mod messages;
mod proxy;
mod store;

#[cfg(test)]
mod tests;

pub use keychain::CriKeychain;
pub use proxy::{ImageService, V1, V1Alpha2};
