//! Fetching over fakes and over a registry in the test process.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic")]

mod background;
mod cancel;
mod chunks;
mod corrupt;
mod flights;
mod golden;
mod headers;
mod limits;
mod network;
mod prefetch;
pub(crate) mod rig;
mod speculative;
mod suppliers;
mod zstd;
