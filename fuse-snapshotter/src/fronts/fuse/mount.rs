//! Mounting and unmounting.
//!
//! Root calls mount(2) itself, with the file system type `fuse.rawBridge` and the source `soci`: users count these
//! strings in `mount` to see whether an image is lazy. `fuser` would drop the subtype. Other users mount through
//! `fusermount3`, which is setuid.

use std::ffi::{CString, OsStr};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fuser::{Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::runtime::Handle;

use super::options::{FuseOptions, Negotiated};
use super::pages::Pages;
use super::{Adapter, FuseStats};
use crate::fronts::forest::{Forest, ROOT};

/// File system type that `mount` shows, as with the reference.
const TYPE: &str = "fuse.rawBridge";
/// Source that `mount` shows.
const SOURCE: &str = "soci";

/// Why a mount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// `/dev/fuse` cannot be opened.
    #[error("cannot open /dev/fuse: {0} (is the kernel module `fuse` loaded?)")]
    Device(#[source] io::Error),
    /// The mount itself.
    #[error("cannot mount at {}: {source}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The threads that serve it.
    #[error("cannot serve the mount at {}: {source}", path.display())]
    Serve {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A mounted and served file system. Dropping it unmounts.
#[derive(Debug)]
pub struct FuseMount {
    path: PathBuf,
    fs: Arc<Forest>,
    stats: Arc<FuseStats>,
    negotiated: Arc<OnceLock<Negotiated>>,
    session: Option<fuser::BackgroundSession>,
    /// Whether we called mount(2) ourselves, so that unmounting is up to us, too.
    own: bool,
}

impl FuseMount {
    /// Mounts `fs` at `path` and serves it.
    ///
    /// # Errors
    /// If it cannot be mounted or served.
    pub fn new(
        fs: Arc<Forest>,
        path: &Path,
        options: FuseOptions,
        runtime: Handle,
    ) -> Result<Self, MountError> {
        let stats = Arc::new(FuseStats::default());
        let negotiated = Arc::new(OnceLock::new());
        let own = rustix::process::geteuid().is_root();
        let pages = Pages::default();
        let adapter = Adapter {
            fs: Arc::clone(&fs),
            runtime,
            stats: Arc::clone(&stats),
            pages: pages.clone(),
            // Users cannot id-map mounts anyway.
            allow_idmap: own,
            negotiated: Arc::clone(&negotiated),
        };
        let mut config = Config::default();
        config.n_threads = Some(options.threads.max(1));
        config.clone_fd = true;
        let serve = |source| MountError::Serve { path: path.to_owned(), source };
        let session = if own {
            let device = mount_device(path, options)?;
            Session::from_fd(adapter, device, SessionACL::All, config).map_err(|error| {
                detach(path);
                serve(error)
            })?
        } else {
            config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
            config.mount_options = vec![
                MountOption::FSName(SOURCE.into()),
                MountOption::Subtype("rawBridge".into()),
                MountOption::RO,
                MountOption::DefaultPermissions,
            ];
            Session::new(adapter, path, &config)
                .map_err(|source| MountError::Mount { path: path.to_owned(), source })?
        };
        let session = session.spawn().map_err(|error| {
            if own {
                detach(path);
            }
            serve(error)
        })?;
        let notifier = session.notifier();
        pages.served_by(notifier.clone());
        fs.watch(Some(Arc::new(move |name| forget_name(&notifier, name))));
        Ok(Self { path: path.to_owned(), fs, stats, negotiated, session: Some(session), own })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the kernel has asked so far.
    #[must_use]
    pub fn stats(&self) -> &FuseStats {
        &self.stats
    }

    /// What was agreed with the kernel.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.get()
    }

    /// Whether it has been unmounted, by whomever.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Leaves the mount where it is, for a process that ends: it is served until then, and whoever looks at it then gets
    /// errors instead of empty directories.
    pub fn leave(mut self) {
        self.fs.watch(None);
        // Dropping a session of an ordinary user unmounts.
        std::mem::forget(self.session.take());
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        self.fs.watch(None);
        if session.guard.is_finished() && is_mounted(&self.path) {
            tracing::error!(path = %self.path.display(), "the mount was served no longer");
        }
        if self.own && is_mounted(&self.path) {
            detach(&self.path);
        }
        // For ordinary users this runs `fusermount3 -u`. The threads end when the last user of the mount has left, which
        // is not waited for.
        drop(session);
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Has the kernel forget what a name in the root stands for, and the list of names.
fn forget_name(notifier: &Notifier, name: &str) {
    let root = INodeNo(ROOT);
    // What a directory's pages hold is the list.
    let told = notifier.inval_inode(root, 0, 0).and_then(|()| notifier.inval_entry(root, OsStr::new(name)));
    if let Err(error) = told {
        tracing::debug!(name, %error, "the kernel cannot be told to forget a name");
    }
}

fn mount_device(path: &Path, options: FuseOptions) -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(MountError::Device)?;
    let device = OwnedFd::from(device);
    // Permissions are checked by the kernel (`default_permissions`): a server that does not check them itself
    // would let every local user into directories of mode 0700.
    let other = if options.allow_other { ",allow_other" } else { "" };
    let data =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions{other}", device.as_raw_fd());
    let failed = |source| MountError::Mount { path: path.to_owned(), source };
    let data = CString::new(data).map_err(|error| failed(error.into()))?;
    // Neither nosuid nor nodev: an image has setuid programs, and containers decide about devices themselves.
    mount(SOURCE, path, TYPE, MountFlags::RDONLY, Some(data.as_c_str()))
        .map_err(|error| failed(error.into()))?;
    Ok(device)
}

/// Whether something is mounted at a path. A mount that nobody serves any more gives errors, but is there.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mask = rustix::fs::StatxFlags::BASIC_STATS;
    match rustix::fs::statx(rustix::fs::CWD, path, rustix::fs::AtFlags::empty(), mask) {
        // Every supported kernel (5.10 and later) fills in this attribute.
        Ok(stat) => stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT),
        Err(rustix::io::Errno::NOENT) => false,
        Err(_) => true,
    }
}

/// Unmounts, if need be by detaching: whoever still has files open there keeps them.
pub(crate) fn detach(path: &Path) {
    if let Err(error) = unmount(path, UnmountFlags::empty())
        && let Err(detach) = unmount(path, UnmountFlags::DETACH)
    {
        tracing::warn!(path = %path.display(), %error, %detach, "cannot unmount");
    }
}
