//! Whether a directory can be the root of a snapshotter: asked before anything is changed there.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::error::{RootProblem, SnapshotError};
use super::layout::Layout;

/// What awslabs/soci-snapshotter keeps its snapshots in, below the root.
const REFERENCE_SNAPSHOTS: &str = "snapshotter/metadata.db";
/// What else it leaves there, which is in nobody's way.
const REFERENCE_OTHERS: [&str; 2] = ["metadata.db", "artifacts.db"];

fn unusable(root: &Path, reason: RootProblem) -> SnapshotError {
    SnapshotError::Root { root: root.to_owned(), reason }
}

/// Whether this process has not the whole range of user ids, as in a rootless container.
pub(super) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    !map.is_empty()
        && (fields.next(), fields.next(), fields.next()) != (Some("0"), Some("0"), Some("4294967295"))
}

/// Looks for the state of awslabs/soci-snapshotter. Its snapshots are in directories that clean-up would take for
/// orphans.
pub(super) fn check_owner(root: &Path) -> Result<(), SnapshotError> {
    look_for_reference(root).map_err(|problem| unusable(root, problem))
}

fn look_for_reference(root: &Path) -> Result<(), RootProblem> {
    if root.join(REFERENCE_SNAPSHOTS).exists() {
        return Err(RootProblem::Reference { file: REFERENCE_SNAPSHOTS });
    }
    for name in REFERENCE_OTHERS.iter().filter(|name| root.join(name).exists()) {
        tracing::info!(
            file = %root.join(name).display(),
            "awslabs/soci-snapshotter has been here; its state is left as it is and not used: pushed indexes go on \
             working, others have to be made again by `soci create`. When nothing needs the file any more, delete it."
        );
    }
    Ok(())
}

/// Removes a directory when dropped, and what is mounted in it before.
struct Trial<'p>(&'p Path);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0.join("merged"), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let _ = fs::remove_dir_all(self.0);
    }
}

/// Tries whether overlayfs works with upper directories below the root. Snapshots without it could be prepared, but no
/// container would ever start.
pub(super) fn check_overlay(layout: &Layout, user_xattr: bool) -> Result<(), SnapshotError> {
    let path = layout.trial();
    let trial = Trial(&path);
    // What an earlier process did not get to.
    drop(Trial(&path));
    try_overlay(&path, user_xattr)
        .map_err(|problem| unusable(layout.root(), RootProblem::AtStart(Box::new(problem))))?;
    drop(trial);
    Ok(())
}

/// Whether a directory, which may be missing yet, can be a root directory. Unlike the checks at
/// start-up this may be asked while a daemon uses the directory: the trial is in a directory of its own.
pub(crate) fn try_root(root: &Path) -> Result<(), RootProblem> {
    let root = std::path::absolute(root).map_err(RootProblem::Absolute)?;
    // The kernel divides options by these.
    if root.to_string_lossy().contains([':', ',', '\\']) {
        return Err(RootProblem::Path);
    }
    look_for_reference(&root)?;
    let there = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let path = there.join(format!(".soci-trial-{}", std::process::id()));
    let _trial = Trial(&path);
    try_overlay(&path, in_user_namespace())
}

fn try_overlay(path: &Path, user_xattr: bool) -> Result<(), RootProblem> {
    let failed = |operation| move |error: io::Error| RootProblem::Trial { operation, error };
    for name in ["one", "two", "upper", "work", "merged"] {
        fs::create_dir_all(path.join(name)).map_err(failed("make directories"))?;
    }
    if !has_types(path).map_err(failed("list directories"))? {
        return Err(RootProblem::NoTypes);
    }
    let part = |name: &str| path.join(name).display().to_string();
    let mut data = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        part("one"),
        part("two"),
        part("upper"),
        part("work")
    );
    if user_xattr {
        data.push_str(",userxattr");
    }
    let data = std::ffi::CString::new(data).map_err(|error| failed("mount overlayfs")(error.into()))?;
    mount("overlay", path.join("merged"), "overlay", MountFlags::empty(), Some(data.as_c_str()))
        .map_err(|error| failed("mount overlayfs")(error.into()))
}

/// Whether listing a directory gives types.
fn has_types(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(directory)? {
        if entry?.file_type() == rustix::fs::FileType::Unknown {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    #[test]
    fn the_snapshots_of_the_reference_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("artifacts.db"), "").unwrap();
        check_owner(root.path()).unwrap();
        fs::create_dir(root.path().join("snapshotter")).unwrap();
        fs::write(root.path().join(REFERENCE_SNAPSHOTS), "").unwrap();
        let error = check_owner(root.path()).unwrap_err().to_string();
        assert!(error.contains("awslabs/soci-snapshotter") && error.contains("To migrate"), "{error}");
    }

    #[test]
    fn overlayfs_is_tried_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::create(root.path()).unwrap();
        fs::create_dir_all(layout.trial().join("merged")).unwrap();
        let checked = check_overlay(&layout, false);
        assert!(!layout.trial().exists());
        if testdata::need::available(&[testdata::need::Need::Root]) {
            checked.unwrap();
            // On a file system that cannot be used for it.
            let layout = Layout::create(Path::new("/proc/self/task"));
            assert!(layout.is_err());
        }
    }
}
