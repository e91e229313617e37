//! The program itself: images in registries, mounted, read, and unmounted.
//!
//! Most of it needs root and `/dev/fuse`. Where they are missing the tests say so aloud, and in CI they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cable;
mod cut;
mod debian;
mod faults;
mod fronts;
mod lifecycle;
mod merged;
mod program;
mod zstd;

use testdata::need::{Need, available};

/// What a mount by root needs.
fn can_mount() -> bool {
    available(&[Need::Root, Need::Fuse])
}
