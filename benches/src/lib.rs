//! What the benchmarks share: yardsticks to measure against, and ways to measure a process.
//!
//! Every figure is a ratio to something in the same run on the same machine, never a bare time.
#![expect(clippy::print_stdout, reason = "the output of a benchmark is for people")]

pub mod bare_fuse;
pub mod caches;
pub mod host;
pub mod mirror;
pub mod process;
pub mod table;
pub mod yardstick;
