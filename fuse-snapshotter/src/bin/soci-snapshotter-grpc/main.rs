//! The SOCI snapshotter's program. All of it is in the library, so that it is compiled once.

use std::process::ExitCode;

/// musl's allocator has one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fuse_snapshotter::daemon::cli::main()
}
