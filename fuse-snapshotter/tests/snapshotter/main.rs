//! The daemon as users have it: under a real containerd, with real registries, images and containers.
//!
//! All of it needs root, `/dev/fuse`, containerd and runc. Where they are missing the tests say so aloud, and in CI they
//! fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs
)]

mod container;
mod converted;
mod cri;
mod daemon;
mod doctor;
mod fallback;
mod nerdctl;
mod node;
mod outage;
mod pages;
mod pods;
mod prefetch;
mod remap;
mod restart;
mod snapshots;
mod status;
mod storm;
mod trips;
mod view;
mod workloads;
mod zstd;

use testdata::need::{Need, available};

/// What every test here needs, beside containerd and runc, which say so themselves.
fn can_run() -> bool {
    available(&[Need::Root, Need::Fuse])
}
