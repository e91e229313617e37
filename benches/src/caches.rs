//! The kernel's caches.

use anyhow::Context;

/// Empties the page cache and the caches of names and inodes, those of the whole machine.
///
/// # Errors
/// Unless root asks for it.
pub fn drop_all() -> anyhow::Result<()> {
    // What is not yet on disk cannot be dropped.
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot empty the kernel's caches")
}
