//! The mounts that make a snapshot: what containerd is told, and does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{SnapshotError, io_error};
use super::layer_runs::{SnapshotDirectory, parts};
use super::rebase;
use super::service::Snapshotter;
use super::store::{Kind, Node, Snapshot};
use crate::fronts::mount_point::is_mounted;
use crate::image::inherit::is_opaque;
use crate::image::stacking::StackPart;

/// A mount, in containerd's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// File system type, or `bind`.
    pub kind: String,
    /// Source.
    pub source: String,
    /// Options, as mount(8) takes them.
    pub options: Vec<String>,
}

/// The directories that a chain of snapshots is stacked from.
#[derive(Debug, Default)]
pub(super) struct Lower {
    /// Bottom first, with the snapshot that each belongs to.
    pub(super) directories: Vec<(u64, PathBuf)>,
    /// Whether the lowest directory may have whiteouts, which only an overlay hides.
    pub(super) whiteouts: bool,
    /// Permission bits, owner and group of the topmost directory, if a tree shows it.
    root: Option<(u16, u32, u32)>,
}

impl Lower {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|(_, path)| path.clone()).collect()
    }

    /// Owner and group of the root directory that the chain shows.
    pub(super) fn owner(&self) -> Result<Option<(u32, u32)>, SnapshotError> {
        if let Some((_, uid, gid)) = self.root {
            return Ok(Some((uid, gid)));
        }
        let Some((_, path)) = self.directories.last() else { return Ok(None) };
        let metadata = std::fs::symlink_metadata(path).map_err(io_error("read", path))?;
        use std::os::unix::fs::MetadataExt;
        Ok(Some((metadata.uid(), metadata.gid())))
    }

    /// Permission bits of the root directory that the chain shows.
    pub(super) fn mode(&self) -> Result<Option<u32>, SnapshotError> {
        if let Some((mode, ..)) = self.root {
            return Ok(Some(mode.into()));
        }
        let Some((_, path)) = self.directories.last() else { return Ok(None) };
        let metadata = std::fs::symlink_metadata(path).map_err(io_error("read", path))?;
        use std::os::unix::fs::PermissionsExt;
        Ok(Some(metadata.permissions().mode() & 0o7777))
    }
}

impl Snapshotter {
    /// Mounts what a chain of snapshots (nearest first) needs, and says which directories it is stacked from.
    pub(super) async fn lower(self: &Arc<Self>, chain: &[Node]) -> Result<Lower, SnapshotError> {
        let mut lower = Lower::default();
        for part in parts(chain)? {
            match part {
                StackPart::Directory(SnapshotDirectory { id, unpacked }) => {
                    tracing::debug!(snapshot = id, "layer is normal snapshot(overlayfs)");
                    let path = self.layout.fs(id);
                    // Overlayfs does not look whether a root is opaque, so what it hides is left out.
                    if is_opaque(&path).map_err(io_error("read", &path))? {
                        lower.directories.clear();
                        lower.whiteouts = unpacked;
                    }
                    if lower.directories.is_empty() {
                        lower.whiteouts = unpacked;
                    }
                    lower.directories.push((id, path));
                    lower.root = None;
                }
                StackPart::Tree(run) => {
                    tracing::debug!(snapshot = run.top, "checking mount point");
                    let mounted = self.trees.ensure(&run, &lower.paths()).await?;
                    if mounted.hides_all_below || lower.directories.is_empty() {
                        lower.directories.clear();
                        lower.whiteouts = mounted.shows_whiteouts;
                    }
                    lower.directories.push((run.top, self.layout.fs(run.top)));
                    lower.root = Some(mounted.root);
                }
            }
        }
        Ok(lower)
    }

    /// The mounts of an active snapshot or a view.
    pub(super) async fn mounts_of(
        self: &Arc<Self>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let mut lower = self.lower(&snapshot.parents).await?;
        self.map_ids(snapshot, &mut lower).await?;
        let access = if snapshot.kind == Kind::View { "ro" } else { "rw" };
        let mut directories = lower.paths();
        let own = self.layout.fs(snapshot.id);
        if rebase::gets_parent_later(snapshot) {
            directories.push(self.layout.lower(snapshot.id));
        }
        if directories.is_empty() {
            return Ok(vec![bind(&own, access)?]);
        }
        let mut options = Vec::new();
        if snapshot.kind == Kind::Active {
            options.push(format!("workdir={}", text(&self.layout.work(snapshot.id))?));
            options.push(format!("upperdir={}", text(&own)?));
        } else if let ([only], false) = (directories.as_slice(), lower.whiteouts) {
            return Ok(vec![bind(only, access)?]);
        } else if directories.len() == 1 {
            // Over an empty directory, the view's own, so that overlayfs hides the whiteouts of a layer that nothing
            // lies below.
            directories.insert(0, own);
        }
        let mut paths = Vec::with_capacity(directories.len());
        for path in directories.iter().rev() {
            paths.push(text(path)?);
        }
        options.push(format!("lowerdir={}", paths.join(":")));
        options.extend(self.overlay_options.iter().cloned());
        // Files and directories then have one st_dev, so that `du -x` and `find -xdev` see all of them.
        if snapshot.parents.iter().any(|node| node.record.is_some()) {
            options.push("xino=on".to_owned());
        }
        Ok(vec![Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }])
    }

    /// Whether the directories that a mount would use are still mounted as they should be.
    #[must_use]
    pub fn is_served(&self, id: u64) -> bool {
        is_mounted(&self.layout.fs(id))
    }
}

fn bind(path: &Path, access: &str) -> Result<Mount, SnapshotError> {
    Ok(Mount {
        kind: "bind".to_owned(),
        source: text(path)?,
        options: vec![access.to_owned(), "rbind".to_owned()],
    })
}

/// A path as an option. Overlayfs takes `:` for a separator and `\` for an escape, and the kernel `,` for the end.
fn text(path: &Path) -> Result<String, SnapshotError> {
    match path.to_str() {
        Some(text) if !text.contains([':', ',', '\\']) => Ok(text.to_owned()),
        _ => Err(SnapshotError::Invalid(format!(
            "{} has a character that overlayfs takes for its own; choose another --root",
            path.display()
        ))),
    }
}
