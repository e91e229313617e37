//! Mounting and unmounting.

use std::fs::OpenOptions;
use std::io::{self, BufWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{Config, Session, SessionACL};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use tokio::runtime::Handle;

use super::ErofsError;
use super::blobs::Blobs;
use super::image::Image;
use crate::content::LazyLayer;
use crate::content::tree::Tree;
use crate::fronts::fuse::{FuseStats, detach, is_mounted};

/// Longest text that fsconfig(2) takes as a value.
const MAX_VALUE: usize = 255;

/// Most of what the kernel has to say about a mount that it refuses.
const MAX_SAID: usize = 1024;

/// A mounted tree. Dropping it unmounts.
#[derive(Debug)]
pub struct ErofsMount {
    path: PathBuf,
    stats: Arc<FuseStats>,
    session: Option<fuser::BackgroundSession>,
}

impl ErofsMount {
    /// Mounts `tree` over its layers, bottom first, at `path`. The image of the metadata is written to `image`, a file that is
    /// not there yet and may go when nobody has the file system mounted; `threads` take the kernel's requests for contents.
    ///
    /// # Errors
    /// See [`ErofsError`]. Nothing is left mounted then; the image may be left behind.
    pub fn new(
        tree: &Tree,
        layers: Vec<Arc<LazyLayer>>,
        image: &Path,
        path: &Path,
        threads: usize,
        runtime: Handle,
    ) -> Result<Self, ErofsError> {
        if !rustix::process::geteuid().is_root() {
            return Err(ErofsError::NotRoot);
        }
        // First, because it says at once whether the kernel knows EROFS. Without `directio` an error in the middle of a read
        // would become zeros; see `blobs`.
        let context = Context::open("erofs", "mount EROFS")?;
        context.flag("directio")?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(image)?;
        {
            let tables: Vec<_> =
                layers.iter().map(|layer| (layer.digest().hex(), &**layer.table())).collect();
            Image::plan(tree, &tables)?.write(BufWriter::new(&file))?;
        }
        let (stats, count) = (Arc::new(FuseStats::default()), layers.len());
        let asynchronous = Arc::new(AtomicBool::new(false));
        let blobs = Blobs {
            layers,
            image_size: file.metadata()?.len(),
            image: file.try_clone()?,
            runtime,
            stats: Arc::clone(&stats),
            asynchronous: Arc::clone(&asynchronous),
        };
        let (session, devices) = serve(blobs, &asynchronous, threads)?;
        match image.as_os_str().as_bytes() {
            short if short.len() <= MAX_VALUE => context.string("source", image)?,
            _ => context.string("source", Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?,
        }
        // The layers, and the image.
        for index in 0..=count {
            let device = format!("/proc/self/fd/{}/{index}", devices.as_raw_fd());
            context.string("device", Path::new(&device))?;
        }
        let mounted = context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        attach(mounted.as_fd(), path).map_err(|error| context.failed("attach EROFS", error))?;
        // From here on EROFS alone holds the devices: when it goes, `session` ends.
        drop(devices);
        Ok(Self { path: path.to_owned(), stats, session: Some(session) })
    }

    /// What the kernel has asked so far.
    #[must_use]
    pub fn stats(&self) -> &FuseStats {
        &self.stats
    }

    /// Whether it has been unmounted, by whomever, and is used no more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }
}

impl Drop for ErofsMount {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if session.guard.is_finished() && is_mounted(&self.path) {
            tracing::error!(path = %self.path.display(), "the mount was served no longer");
        }
        if is_mounted(&self.path) {
            detach(&self.path);
        }
        // The threads end when the last user of the mount has left, which is not waited for.
        drop(session);
    }
}

/// Serves the devices by a FUSE file system that is attached nowhere: it lasts as long as the descriptor, or whatever was opened
/// through it.
fn serve(
    blobs: Blobs,
    asynchronous: &AtomicBool,
    threads: usize,
) -> Result<(fuser::BackgroundSession, OwnedFd), ErofsError> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(ErofsError::Serve)?;
    let device = OwnedFd::from(device);
    let context = Context::open("fuse", "mount FUSE")?;
    for (key, value) in [
        ("source", "soci"),
        ("fd", &device.as_raw_fd().to_string()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        context.string(key, Path::new(value))?;
    }
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounted = context.mount(flags)?;
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    config.clone_fd = true;
    // This waits until the kernel has said what it can do.
    let session = Session::from_fd(blobs, device, SessionACL::All, config).map_err(ErofsError::Serve)?;
    if !asynchronous.load(Ordering::Acquire) {
        return Err(ErofsError::Serve(io::Error::other(
            "the kernel lacks asynchronous direct reads by FUSE",
        )));
    }
    Ok((session.spawn().map_err(ErofsError::Serve)?, mounted))
}

fn attach(mounted: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    move_mount(mounted, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A file system that is being configured.
struct Context {
    fd: OwnedFd,
    /// What is being done, for errors.
    what: &'static str,
}

impl Context {
    fn open(kind: &str, what: &'static str) -> Result<Self, ErofsError> {
        let fd = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC);
        let fd = fd.map_err(|error| ErofsError::Kernel { what, error: error.into(), said: String::new() })?;
        Ok(Self { fd, what })
    }

    fn flag(&self, key: &str) -> Result<(), ErofsError> {
        fsconfig_set_flag(self.fd.as_fd(), key).map_err(|error| self.failed(self.what, error))
    }

    fn string(&self, key: &str, value: &Path) -> Result<(), ErofsError> {
        fsconfig_set_string(self.fd.as_fd(), key, value).map_err(|error| self.failed(self.what, error))
    }

    /// Makes the file system, read-only, and a mount of it that is attached nowhere.
    fn mount(&self, flags: MountAttrFlags) -> Result<OwnedFd, ErofsError> {
        self.flag("ro")?;
        fsconfig_create(self.fd.as_fd())
            .and_then(|()| fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags))
            .map_err(|error| self.failed(self.what, error))
    }

    /// The error for what the kernel refused, with its reasons if it gives any.
    fn failed(&self, what: &'static str, error: Errno) -> ErofsError {
        let mut said = String::new();
        let mut buffer = [0; MAX_SAID];
        // One message each time, until there is none.
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut buffer)
            && said.len() < MAX_SAID
        {
            let message = String::from_utf8_lossy(&buffer[..length]);
            said += &format!(" ({})", message.trim_end());
        }
        ErofsError::Kernel { what, error: error.into(), said }
    }
}
