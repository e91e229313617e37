//! What is agreed with the kernel.

use fuser::{InitFlags, KernelConfig};

/// How a FUSE mount is made.
#[derive(Debug, Clone, Copy)]
pub struct FuseOptions {
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Whether users other than the one who mounts may look in.
    pub allow_other: bool,
}

/// Requests of the background kind (read-ahead, mostly) that may be under way. Reads that wait for one image's
/// network must not hold up others'.
const MAX_BACKGROUND: u16 = 512;

/// What the kernel can do without.
pub(super) struct Negotiated {
    pub(super) no_open: bool,
    pub(super) no_opendir: bool,
}

/// Asks for every capability that suits a tree that never changes; those that the kernel lacks are logged once.
pub(super) fn negotiate(config: &mut KernelConfig) -> Negotiated {
    // READDIRPLUS without _AUTO: with it the kernel soon goes back to one look-up per name.
    let wanted = [
        ("readdirplus", InitFlags::FUSE_DO_READDIRPLUS),
        ("parallel directory operations", InitFlags::FUSE_PARALLEL_DIROPS),
        ("cached symbolic links", InitFlags::FUSE_CACHE_SYMLINKS),
        ("large requests", InitFlags::FUSE_MAX_PAGES),
        ("no open", InitFlags::FUSE_NO_OPEN_SUPPORT),
        ("no opendir", InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    ];
    let lacking: Vec<_> = wanted
        .iter()
        .filter(|(_, flag)| config.add_capabilities(*flag).is_err())
        .map(|(name, _)| *name)
        .collect();
    if !lacking.is_empty() {
        tracing::info!(?lacking, "the kernel lacks FUSE capabilities; reading works, but slower");
    }
    // Also bounds reads. A shorter answer than was asked for would be taken for the end of the file.
    if config.set_max_write(super::MAX_READ).is_err() {
        tracing::debug!("the kernel keeps its limit of a request's size");
    }
    if config.set_max_background(MAX_BACKGROUND).is_err() {
        tracing::debug!("the kernel keeps its limit of background requests");
    }
    Negotiated {
        no_open: config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
        no_opendir: config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    }
}
