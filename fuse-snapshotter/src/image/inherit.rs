//! Directories that a layer has something in but does not mention keep the attributes that they have below.
//!
//! Within a run of lazy layers the merge sees to that. Between runs and unpacked layers overlayfs takes the attributes
//! of the topmost layer that has the directory, so these must be given the ones from below first.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use ztoc::Timestamp;

use crate::content::tree::{DirectoryAttributes, OverlayNamespace, Tree};

/// Gives the directories `implied` of an unpacked layer the attributes they have in `lower`, bottom first.
pub(crate) fn inherit(directory: &Path, implied: &[PathBuf], lower: &[PathBuf]) -> io::Result<()> {
    for path in implied {
        if is_cut_off(directory, path)? {
            continue;
        }
        if let Some(found) = find(lower, path)? {
            describe(&directory.join(path), &found)?;
        }
    }
    Ok(())
}

/// The same for the tree of a run.
pub(crate) fn inherit_tree(tree: &mut Tree, lower: &[PathBuf]) -> io::Result<()> {
    for (path, inode) in tree.implied() {
        if let Some(found) = find(lower, Path::new(OsStr::from_bytes(&path)))? {
            tree.describe(inode, &found);
        }
    }
    Ok(())
}

/// Whether a directory above `path` in the same layer hides all that is below.
fn is_cut_off(directory: &Path, path: &Path) -> io::Result<bool> {
    for ancestor in path.ancestors().skip(1) {
        if is_opaque(&directory.join(ancestor))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The attributes that overlayfs would show for a directory in a stack of layers, bottom first.
fn find(lower: &[PathBuf], path: &Path) -> io::Result<Option<DirectoryAttributes>> {
    'layers: for layer in lower.iter().rev() {
        let mut last = false;
        // From the root to the directory itself: nothing of it is a link then.
        let mut prefixes: Vec<&Path> = path.ancestors().collect();
        prefixes.reverse();
        for prefix in prefixes {
            let full = layer.join(prefix);
            let stat = match rustix::fs::statat(CWD, &full, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NOTDIR) if last => return Ok(None),
                Err(Errno::NOENT | Errno::NOTDIR) => continue 'layers,
                Err(error) => return Err(error.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                // A whiteout, or something else that hides what is below it.
                return Ok(None);
            }
            if prefix == path {
                return attributes(&full, &stat).map(Some);
            }
            last |= is_opaque(&full)?;
        }
    }
    Ok(None)
}

/// Whether a directory hides all that the layers below have in it.
pub(crate) fn is_opaque(directory: &Path) -> io::Result<bool> {
    for namespace in [OverlayNamespace::Trusted, OverlayNamespace::User] {
        let mut value = [0; 2];
        let name = OsStr::from_bytes(namespace.opaque_attribute());
        match rustix::fs::lgetxattr(directory, name, &mut value) {
            Ok(length) if &value[..length] == b"y" => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT | Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn attributes(directory: &Path, stat: &Stat) -> io::Result<DirectoryAttributes> {
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(directory, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(directory, OsStr::from_bytes(name), &mut value)?;
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    Ok(DirectoryAttributes {
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        xattrs,
    })
}

fn describe(directory: &Path, of: &DirectoryAttributes) -> io::Result<()> {
    rustix::fs::chown(directory, Some(Uid::from_raw(of.uid)), Some(Gid::from_raw(of.gid)))?;
    for (name, value) in &of.xattrs {
        rustix::fs::lsetxattr(directory, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    rustix::fs::chmod(directory, Mode::from_raw_mode(of.mode.into()))?;
    let time = Timespec { tv_sec: of.mtime.seconds, tv_nsec: of.mtime.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, directory, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
