//! The daemon as a process, without containerd: how it starts, what it serves, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod end;
mod process;
mod serve;
mod start;
