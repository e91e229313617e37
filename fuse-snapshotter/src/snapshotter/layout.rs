//! Directories of the snapshotter.
//!
//! ```text
//! ROOT/snapshotter/snapshots.redb        the store
//! ROOT/snapshotter/trees                 where the FUSE file system of all trees is mounted
//! ROOT/snapshotter/snapshots/<id>/fs     a tree, a layer's contents, or a container's upper directory
//! ROOT/snapshotter/snapshots/<id>/work   overlayfs's work directory, of active snapshots
//! ROOT/snapshotter/snapshots/<id>/lower  an empty directory, of active snapshots that get a parent when they are committed
//! ROOT/snapshotter/snapshots/<a>_<b>/fs  where `<a>/fs` is mounted with the ids of the container that snapshot <b> is for
//! ROOT/snapshotter/snapshots/<a>_<b>/copy    a copy of `<a>/fs` with these ids, where it cannot be mounted with them
//! ROOT/snapshotter/snapshots/<a>_<b>/partial a copy that is not whole
//! ROOT/snapshotter/unpack/<n>            layers that are being unpacked
//! ROOT/snapshotter/trial                 where overlayfs is tried at start-up
//! ROOT/ztocs/<hex>                       zTOCs of the layers in use
//! ROOT/cache/…                           what has been fetched of them
//! ROOT/recordings/<hex>.json             what the start of an image read
//! ```

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::store::Usage;

/// Mode of `fs` directories.
const FS_MODE: u32 = 0o755;
/// Mode of `work` directories.
const WORK_MODE: u32 = 0o711;

/// Names of everything below the root directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// The name of a directory of snapshots, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Snapshot(u64),
    /// The first one's contents with the ids of the second one's container.
    Mapped {
        of: u64,
        container: u64,
    },
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        match name.split_once('_') {
            None => Some(Self::Snapshot(name.parse().ok()?)),
            Some((of, container)) => {
                Some(Self::Mapped { of: of.parse().ok()?, container: container.parse().ok()? })
            }
        }
    }

    /// Whether one of its snapshots is not among those that there are.
    pub(super) fn is_orphan(self, there: impl Fn(u64) -> bool) -> bool {
        match self {
            Self::Snapshot(id) => !there(id),
            Self::Mapped { of, container } => !there(of) || !there(container),
        }
    }
}

impl Layout {
    /// The layout below `root`; makes what is missing.
    ///
    /// # Errors
    /// If a directory cannot be made.
    pub fn create(root: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        // As the kernel's table of mounts has it: what an earlier process left mounted is looked for there.
        let layout = Self { root: root.canonicalize()? };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(layout.snapshotter())?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(layout.snapshots())?;
        Ok(layout)
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn snapshotter(&self) -> PathBuf {
        self.root.join("snapshotter")
    }

    /// Everything that may be mounted is below this directory.
    #[must_use]
    pub fn mounts(&self) -> PathBuf {
        self.snapshotter()
    }

    /// The store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.snapshotter().join("snapshots.redb")
    }

    /// Where the trees are mounted.
    #[must_use]
    pub fn trees(&self) -> PathBuf {
        self.snapshotter().join("trees")
    }

    /// Where layers are unpacked.
    #[must_use]
    pub fn unpack(&self) -> PathBuf {
        self.snapshotter().join("unpack")
    }

    /// Where overlayfs is tried at start-up.
    pub(super) fn trial(&self) -> PathBuf {
        self.snapshotter().join("trial")
    }

    /// Where the zTOCs are.
    #[must_use]
    pub fn ztocs(&self) -> PathBuf {
        self.root.join("ztocs")
    }

    /// Where recordings of starts are.
    #[must_use]
    pub fn recordings(&self) -> PathBuf {
        self.root.join("recordings")
    }

    /// Where the cache is.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    fn snapshots(&self) -> PathBuf {
        self.snapshotter().join("snapshots")
    }

    /// The directory of a snapshot's contents.
    #[must_use]
    pub fn fs(&self, id: u64) -> PathBuf {
        self.snapshots().join(id.to_string()).join("fs")
    }

    /// The work directory of an active snapshot.
    #[must_use]
    pub fn work(&self, id: u64) -> PathBuf {
        self.snapshots().join(id.to_string()).join("work")
    }

    /// What an active snapshot is mounted over that gets its parent later: an empty directory.
    #[must_use]
    pub fn lower(&self, id: u64) -> PathBuf {
        self.snapshots().join(id.to_string()).join("lower")
    }

    /// A snapshot's contents with the ids of another snapshot's container.
    pub(super) fn mapped(&self, of: u64, container: u64) -> PathBuf {
        self.snapshots().join(format!("{of}_{container}")).join("fs")
    }

    /// A copy of a snapshot's contents with the ids of another snapshot's container.
    pub(super) fn mapped_copy(&self, of: u64, container: u64) -> PathBuf {
        self.mapped(of, container).with_file_name("copy")
    }

    /// Makes the directories of a snapshot; those that are there stay as they are.
    pub(super) fn make(&self, id: u64, work: bool) -> io::Result<()> {
        make(&self.fs(id), FS_MODE)?;
        if work {
            make(&self.work(id), WORK_MODE)?;
        }
        Ok(())
    }

    /// Makes the directory for [`Layout::lower`]. Before the snapshot's own: see [`Layout::is_untouched`].
    pub(super) fn make_lower(&self, id: u64) -> io::Result<()> {
        make(&self.lower(id), FS_MODE)
    }

    /// Whether a snapshot's directory, which has a [`Layout::lower`], still has the owner and the mode that it was made
    /// with because the layer that was unpacked into it says nothing of its root. A layer that asks for just these says
    /// also when its root was changed: long before. Nothing else sets the time of the directory back.
    pub(super) fn is_untouched(&self, id: u64) -> io::Result<bool> {
        let metadata = fs::symlink_metadata(self.fs(id))?;
        let attributes = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        Ok(attributes == (0, 0, FS_MODE)
            && metadata.modified()? >= fs::symlink_metadata(self.lower(id))?.modified()?)
    }

    /// Makes the directory for [`Layout::mapped`].
    pub(super) fn make_mapped(&self, of: u64, container: u64) -> io::Result<PathBuf> {
        let path = self.mapped(of, container);
        make(&path, FS_MODE)?;
        Ok(path)
    }

    /// The directories that there are.
    pub(super) fn list(&self) -> io::Result<Vec<(Name, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.snapshots())? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().and_then(Name::parse) {
                found.push((name, entry.path()));
            }
        }
        Ok(found)
    }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Disk space of a directory with all it holds, each file once. File systems mounted in it are not entered.
pub(super) fn usage(directory: &Path) -> io::Result<Usage> {
    let device = fs::symlink_metadata(directory)?.dev();
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    let mut pending = vec![directory.to_owned()];
    let mut count = |metadata: &fs::Metadata| {
        if metadata.nlink() < 2 || metadata.is_dir() || seen.insert(metadata.ino()) {
            usage.size += metadata.blocks() * 512;
            usage.inodes += 1;
        }
    };
    count(&fs::symlink_metadata(directory)?);
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A container at work removes what it likes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.dev() != device {
                continue;
            }
            count(&metadata);
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(usage)
}
