//! Fetching over fakes and over a registry in the test process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod background;
mod cancel;
mod corrupt;
mod flights;
mod golden;
mod headers;
mod likely;
mod limits;
mod network;
mod pieces;
mod prefetch;
pub(crate) mod rig;
mod zstd;
