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
pub(crate) const MAX_BACKGROUND: u16 = 512;

/// What was agreed with the kernel.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// Whether mounts of the file system can be id-mapped (`MOUNT_ATTR_IDMAP`).
    pub idmap: bool,
    /// What was asked for in vain.
    pub lacking: Vec<&'static str>,
    /// Whether the kernel can do without open and opendir.
    pub(super) no_open: bool,
    pub(super) no_opendir: bool,
}

/// What the kernel calls mounts that translate owners.
const IDMAP: (&str, InitFlags) = ("id-mapped mounts", InitFlags::FUSE_ALLOW_IDMAP);

/// Asks for every capability that suits a tree that never changes; those that the kernel lacks are logged once.
///
/// With `allow_idmap` mounts of the file system can be id-mapped. The kernel breaks the connection off if the mount does
/// not have `default_permissions`, and no longer says whose requests are, so `fuser` must not want to know.
pub(super) fn negotiate(config: &mut KernelConfig, allow_idmap: bool) -> Negotiated {
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
        .chain(allow_idmap.then_some(&IDMAP))
        .filter(|(_, flag)| config.add_capabilities(*flag).is_err())
        .map(|(name, _)| *name)
        .collect();
    if !lacking.is_empty() {
        tracing::info!(
            ?lacking,
            "the kernel lacks FUSE capabilities; reading works without them, but slower"
        );
    }
    // Also bounds reads. A shorter answer than was asked for would be taken for the end of the file.
    if config.set_max_write(super::MAX_READ).is_err() {
        tracing::debug!("the kernel keeps its limit of a request's size");
    }
    if config.set_max_background(MAX_BACKGROUND).is_err() {
        tracing::debug!("the kernel keeps its limit of background requests");
    }
    Negotiated {
        idmap: allow_idmap && !lacking.contains(&IDMAP.0),
        lacking,
        no_open: config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
        no_opendir: config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    }
}
