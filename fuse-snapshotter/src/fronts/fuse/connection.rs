//! A connection to the kernel, from opening the device to serving it.
//!
//! Root calls mount(2) itself, with the file system type `fuse.rawBridge` and the source `soci`: users count these
//! strings in `mount` to see whether an image is lazy. `fuser` would drop the subtype. Other users mount through
//! `fusermount3`, which is setuid.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{INodeNo, MountOption, Notifier, SessionACL};
use rustix::mount::{MountFlags, mount};
use tokio::runtime::Handle;

use super::adapter::Adapter;
use super::negotiated::{Negotiated, negotiate};
use super::pages::Pages;
use crate::fronts::forest::{Forest, ROOT};
use crate::fronts::mount_point::detach;
use crate::fronts::mounted::{Mounted, UserMount};
use crate::fronts::session;
use crate::fronts::stats::FuseStats;

/// File system type that `mount` shows, as with the reference.
const TYPE: &str = "fuse.rawBridge";
/// Source that `mount` shows.
const SOURCE: &str = "soci";

/// How a FUSE mount is made.
#[derive(Debug, Clone, Copy)]
pub struct FuseOptions {
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Whether users other than the one who mounts may look in.
    pub allow_other: bool,
}

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
    /// The INIT exchange, or the threads that serve it.
    #[error("cannot serve the mount at {}: {source}", path.display())]
    Serve {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A mounted file system that nobody serves yet: its device, and what was agreed with the kernel.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    device: OwnedFd,
    negotiated: Negotiated,
    acl: SessionACL,
    user_mount: Option<UserMount>,
}

impl Connection {
    /// Opens the device, mounts it at `path`, and makes the INIT exchange.
    ///
    /// # Errors
    /// If one of these fails. Nothing is left mounted then.
    pub fn open(path: &Path, options: FuseOptions) -> Result<Self, MountError> {
        if rustix::process::geteuid().is_root() {
            Self::open_as_root(path, options)
        } else {
            Self::open_as_user(path, options)
        }
    }

    /// Takes over the device of a file system that root has mounted at `path`. It must be served by nobody else any
    /// more, its INIT exchange is over, and this is what was agreed in it.
    #[must_use]
    pub fn adopt(path: &Path, device: OwnedFd, negotiated: Negotiated) -> Self {
        Self { path: path.to_owned(), device, negotiated, acl: SessionACL::All, user_mount: None }
    }

    /// The device. The connection lives as long as any descriptor of it, in any process.
    #[must_use]
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// What was agreed with the kernel.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    fn open_as_root(path: &Path, options: FuseOptions) -> Result<Self, MountError> {
        let device = session::open_device().map_err(MountError::Device)?;
        mount_device(device.as_fd(), path, options)
            .map_err(|source| MountError::Mount { path: path.to_owned(), source })?;
        match session::exchange(device.as_fd(), |config| negotiate(config, true)) {
            Ok(negotiated) => Ok(Self::adopt(path, device, negotiated)),
            Err(source) => {
                detach(path);
                Err(MountError::Serve { path: path.to_owned(), source })
            }
        }
    }

    fn open_as_user(path: &Path, options: FuseOptions) -> Result<Self, MountError> {
        let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        let options = vec![
            MountOption::FSName(SOURCE.into()),
            MountOption::Subtype("rawBridge".into()),
            MountOption::RO,
            MountOption::DefaultPermissions,
        ];
        // Users cannot id-map mounts anyway.
        let opened = session::fusermount(path, options, acl, |config| negotiate(config, false))
            .map_err(|source| MountError::Mount { path: path.to_owned(), source })?;
        Ok(Self {
            path: path.to_owned(),
            device: opened.device,
            negotiated: opened.chosen,
            acl,
            user_mount: Some(opened.mount),
        })
    }

    /// Serves `forest` by this many threads.
    ///
    /// # Errors
    /// If the threads cannot be started. What root has mounted stays mounted.
    pub fn serve(self, forest: &Arc<Forest>, threads: usize, runtime: Handle) -> Result<Mounted, MountError> {
        let Self { path, device, negotiated, acl, user_mount } = self;
        let (stats, pages) = (Arc::new(FuseStats::default()), Pages::default());
        let adapter = Adapter {
            forest: Arc::clone(forest),
            runtime,
            stats: Arc::clone(&stats),
            pages: pages.clone(),
            negotiated: negotiated.clone(),
        };
        let session = match session::serve(adapter, device, acl, threads) {
            Ok(session) => session,
            Err(source) => return Err(MountError::Serve { path, source }),
        };
        let notifier = Arc::new(session.notifier());
        pages.served_by(&notifier);
        let weak = Arc::downgrade(&notifier);
        forest.watch(Arc::new(move |name| {
            if let Some(notifier) = weak.upgrade() {
                forget_name(&notifier, name);
            }
        }));
        Ok(Mounted::by_fuse(path, stats, session, negotiated, notifier, user_mount))
    }
}

/// Mounts `forest` at `path` and serves it.
///
/// # Errors
/// If it cannot be mounted or served.
pub fn mount_forest(
    forest: &Arc<Forest>,
    path: &Path,
    options: FuseOptions,
    runtime: Handle,
) -> Result<Mounted, MountError> {
    let connection = Connection::open(path, options)?;
    let by_root = connection.user_mount.is_none();
    connection.serve(forest, options.threads, runtime).inspect_err(|_| {
        if by_root {
            detach(path);
        }
    })
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

/// Mounts a device at a path.
fn mount_device(device: BorrowedFd<'_>, path: &Path, options: FuseOptions) -> io::Result<()> {
    // Permissions are checked by the kernel (`default_permissions`): a server that does not check them itself
    // would let every local user into directories of mode 0700.
    let other = if options.allow_other { ",allow_other" } else { "" };
    let data =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions{other}", device.as_raw_fd());
    let data = CString::new(data)?;
    // Neither nosuid nor nodev: an image has setuid programs, and containers decide about devices themselves.
    Ok(mount(SOURCE, path, TYPE, MountFlags::RDONLY, Some(data.as_c_str()))?)
}
