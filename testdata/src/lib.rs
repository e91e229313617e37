//! Test support for the whole workspace. Nothing here ships in a binary, except behind `demo`.
//!
//! - [`golden`]: inputs with what the reference implementation makes of them.
//! - [`registry`]: an OCI registry inside the test process, with authentication, redirects, latency, bandwidth and faults.
//! - [`image`]: layers and images made deterministically, every byte of the tar under control.
//! - [`containerd`], [`docker_registry`]: the real programs, with everything they keep in temporary directories.
//! - [`free_port`]: ports for servers that are told where to listen.
//! - [`copied`]: copies of programs that are to be started.
//! - [`clients`]: where the current containerd and its clients are, which Debian does not have.
//! - [`workloads`]: images of real programs, made of Debian packages and cached between test runs.
//! - [`manual`]: completions and man pages of a program, compared with its help.
//! - [`seeds`]: what fuzz targets begin with, made of the golden vectors.
//! - [`walk`]: directory trees of this machine, attribute by attribute.
//! - [`expected`]: what a stack of layers must look like when merged; an oracle written without the product's code.

// Handing errors up would only make every caller unwrap them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this crate is a part of tests: a broken fixture stops the test where it broke"
)]

pub mod clients;
pub mod containerd;
pub mod copied;
pub mod digest;
pub mod docker_registry;
pub mod expected;
pub mod free_port;
pub mod golden;
pub mod image;
pub mod manual;
pub mod need;
pub mod registry;
pub mod seeds;
pub mod walk;
pub mod workloads;
