//! Mounting a tree by EROFS.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use fuser::{BackgroundSession, SessionACL};
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MoveMountFlags, move_mount};
use tokio::runtime::Handle;

use super::blobs::{self, Blobs};
use super::context::Context;
use super::error::ErofsError;
use super::image::Image;
use crate::content::LazyLayer;
use crate::content::tree::Tree;
use crate::fronts::mounted::Mounted;
use crate::fronts::session;
use crate::fronts::stats::FuseStats;

/// Longest text that fsconfig(2) takes as a value.
const MAX_VALUE: usize = 255;

/// Mounts `tree` over its layers, bottom first, at `path`. The image of the metadata is written to `image`, a file
/// that is not there yet, and that may go when nobody has the file system mounted. `threads` take the kernel's
/// requests for contents.
///
/// # Errors
/// See [`ErofsError`]. Nothing is left mounted then; the image may be left behind.
pub fn mount_tree(
    tree: &Tree,
    layers: Vec<Arc<LazyLayer>>,
    image: &Path,
    path: &Path,
    threads: usize,
    runtime: Handle,
) -> Result<Mounted, ErofsError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ErofsError::NotRoot);
    }
    // First, because it says at once whether the kernel knows EROFS. Without `directio` an error in the middle of a
    // read would become zeros; see `blobs`.
    let context = Context::open("erofs", "mount EROFS")?;
    context.flag("directio")?;
    let file = write_image(tree, &layers, image)?;
    let (stats, count) = (Arc::new(FuseStats::default()), layers.len());
    let blobs = Blobs {
        layers,
        image_size: file.metadata()?.len(),
        image: file.try_clone()?,
        runtime,
        stats: Arc::clone(&stats),
    };
    let (session, devices) = serve(blobs, threads)?;
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
    Ok(Mounted::by_erofs(path, stats, session))
}

/// Writes the metadata of a tree to a new file.
fn write_image(tree: &Tree, layers: &[Arc<LazyLayer>], image: &Path) -> Result<File, ErofsError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(image)?;
    let tables: Vec<_> = layers.iter().map(|layer| (layer.digest().hex(), &**layer.table())).collect();
    Image::plan(tree, &tables)?.write(BufWriter::new(&file))?;
    Ok(file)
}

/// Serves the devices by a FUSE file system that is attached nowhere. It lasts as long as the descriptor, and
/// whatever was opened through it.
fn serve(blobs: Blobs, threads: usize) -> Result<(BackgroundSession, OwnedFd), ErofsError> {
    let device = session::open_device().map_err(ErofsError::Serve)?;
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
    if !session::exchange(device.as_fd(), blobs::negotiate).map_err(ErofsError::Serve)? {
        return Err(ErofsError::Serve(io::Error::other(
            "the kernel lacks asynchronous direct reads by FUSE",
        )));
    }
    let session = session::serve(blobs, device, SessionACL::All, threads).map_err(ErofsError::Serve)?;
    Ok((session, mounted))
}

fn attach(mounted: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    move_mount(mounted, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
