//! What is agreed with the kernel.

use fuser::{InitFlags, KernelConfig};
use serde::{Deserialize, Serialize};

use crate::fronts::session::{MAX_BACKGROUND, MAX_READ};

/// What was agreed with the kernel in the INIT exchange. It holds as long as the connection, so whoever takes over
/// the device needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// Whether mounts of the file system can be id-mapped (`MOUNT_ATTR_IDMAP`).
    pub idmap: bool,
    /// Capabilities that were asked for and that the kernel does not have.
    pub lacking: Vec<String>,
    /// Whether the kernel can do without open.
    pub(super) no_open: bool,
    /// Whether the kernel can do without opendir.
    pub(super) no_opendir: bool,
}

/// What the kernel calls mounts that translate owners.
const IDMAP: (&str, InitFlags) = ("id-mapped mounts", InitFlags::FUSE_ALLOW_IDMAP);

/// Asks for every capability that suits a tree that never changes. Those that the kernel lacks are logged once.
///
/// With `allow_idmap`, mounts of the file system can be id-mapped. The kernel then breaks the connection off if the
/// mount does not have `default_permissions`. It also no longer says whose requests are, so `fuser` must not want
/// to know.
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
        .map(|(name, _)| (*name).to_owned())
        .collect();
    if !lacking.is_empty() {
        tracing::info!(
            ?lacking,
            "the kernel lacks FUSE capabilities; reading works without them, but slower"
        );
    }
    // Also bounds reads. A shorter answer than was asked for would be taken for the end of the file.
    if config.set_max_write(MAX_READ).is_err() {
        tracing::debug!("the kernel keeps its limit of a request's size");
    }
    if config.set_max_background(MAX_BACKGROUND).is_err() {
        tracing::debug!("the kernel keeps its limit of background requests");
    }
    let offers = config.capabilities();
    Negotiated {
        idmap: allow_idmap && offers.contains(IDMAP.1),
        lacking,
        no_open: offers.contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
        no_opendir: offers.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    }
}
