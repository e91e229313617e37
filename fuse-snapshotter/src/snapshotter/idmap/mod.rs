//! Containers in user namespaces: their layers with their own ids.
//!
//! A client that wants it labels the container's snapshot with the mapping. Each directory that the snapshot is stacked
//! from is then given to this container alone with other owners, and the upper directory belongs to the container's
//! root. There are three ways:
//!
//! * it is mounted once more with its ids mapped by the kernel, which costs nothing (`kernel`);
//! * a tree of lazy layers is served once more with other owners (`tree`);
//! * any other directory is copied (`copy`).
//!
//! The kernel is asked first; where it cannot, the other two do. Either is at `<a>_<b>/fs` if it is mounted, and a copy
//! at `<a>_<b>/copy`, so that a mount point is never taken for a copy of nothing. A copy gets that name when it is
//! whole and on disk.
//!
//! All of it follows from the labels and these names. After a restart copies are still there, and the rest is mounted
//! again on demand.

mod copy;
mod kernel;
mod labels;
pub(super) mod mapper;
mod tree;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) use labels::mapped_owner;
pub use mapper::IdMapping;

use super::error::{SnapshotError, io_error};
use super::layer_runs::{LazyRun, parts};
use super::mounts::Lower;
use super::service::Snapshotter;
use super::store::{Snapshot, StoreError};
use crate::base::sys::id_mapped_clone;
use crate::fronts::forest::IdMaps;
use crate::fronts::mount_point::{detach_if_mounted, is_mounted};
use crate::image::stacking::StackPart;
use crate::image::unpack::remove_tree;
use kernel::WhyNotMapped;
use mapper::Job;

/// What is asked for.
struct Request {
    snapshot: Snapshot,
    ids: IdMaps,
    /// Bottom first, with the snapshot that each belongs to.
    directories: Vec<(u64, PathBuf)>,
}

impl Snapshotter {
    /// Replaces the directories that a snapshot is stacked from by ones with the ids of its container.
    pub(super) async fn map_ids(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        lower: &mut Lower,
    ) -> Result<(), SnapshotError> {
        let Some(ids) = labels::mapping(&snapshot.labels)? else { return Ok(()) };
        let job = self.id_mapper.job(snapshot.id);
        let single = Arc::clone(&job.single).lock_owned().await;
        let request = Request { snapshot: snapshot.clone(), ids, directories: lower.directories.clone() };
        let snapshotter = Arc::clone(self);
        let mapping = tokio::task::spawn_blocking(move || {
            let _single = single;
            snapshotter.check_there(&request.snapshot)?;
            let mapped = snapshotter.map_directories(&request, &job);
            // Who removed the container meanwhile may not have seen all that was made for it.
            snapshotter.check_there(&request.snapshot).inspect_err(|_| snapshotter.removed.notify_one())?;
            mapped
        });
        lower.directories = mapping.await??;
        Ok(())
    }

    fn check_there(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        match self.store.get(&snapshot.key) {
            Ok(found) if found.id == snapshot.id => Ok(()),
            Ok(_) => Err(StoreError::NotFound(format!("snapshot {} does not exist", snapshot.key)).into()),
            Err(error) => Err(error.into()),
        }
    }

    fn map_directories(&self, request: &Request, job: &Job) -> Result<Vec<(u64, PathBuf)>, SnapshotError> {
        let started = std::time::Instant::now();
        let container = request.snapshot.id;
        let runs: HashMap<u64, LazyRun> = parts(&request.snapshot.parents)?
            .into_iter()
            .filter_map(|part| match part {
                StackPart::Tree(run) => Some((run.top, run)),
                StackPart::Directory(_) => None,
            })
            .collect();
        let mut namespace = None;
        let mut mapped = Vec::with_capacity(request.directories.len());
        let (mut trees, mut copies, mut reason) = (0, 0, None);
        for (id, source) in &request.directories {
            let target = self.layout.mapped(*id, container);
            let copy = self.layout.mapped_copy(*id, container);
            self.layout.make_mapped(*id, container).map_err(io_error("create", &target))?;
            let run = runs.get(id);
            if is_mounted(&target) {
                mapped.push((*id, target));
                continue;
            }
            if run.is_none() && copy.symlink_metadata().is_ok() {
                mapped.push((*id, copy));
                continue;
            }
            let Err(why_not) =
                self.mount_mapped(source, &target, run.is_some(), &request.ids, &mut namespace)
            else {
                mapped.push((*id, target));
                continue;
            };
            reason.get_or_insert(why_not);
            match run {
                Some(run) => {
                    self.mount_translated(run, &request.ids, container)?;
                    trees += 1;
                    mapped.push((*id, target));
                }
                None => {
                    self.copy(source, &copy, &request.ids, job)?;
                    copies += 1;
                    mapped.push((*id, copy));
                }
            }
        }
        if let Some(reason) = reason {
            tracing::info!(
                snapshot = container, trees, copies, %reason,
                milliseconds = started.elapsed().as_millis() as u64,
                "owners were translated without id-mapped mounts"
            );
        }
        Ok(mapped)
    }

    /// Mounts a directory with its ids mapped by the kernel. `namespace` is made when it is needed first.
    fn mount_mapped(
        &self,
        source: &Path,
        target: &Path,
        is_tree: bool,
        ids: &IdMaps,
        namespace: &mut Option<Result<OwnedFd, WhyNotMapped>>,
    ) -> Result<(), WhyNotMapped> {
        let mapper = &self.id_mapper;
        if mapper.how == IdMapping::Copy {
            return Err(WhyNotMapped::Configured);
        }
        if is_tree && !self.trees.map_ids() {
            return Err(WhyNotMapped::Fuse);
        }
        if !is_tree && let Some(Some(why)) = mapper.not_stackable.get() {
            return Err(why.clone());
        }
        let namespace = namespace.get_or_insert_with(|| {
            mapper.namespaces.create(ids).map_err(|error| WhyNotMapped::Namespace(Arc::new(error)))
        });
        let namespace = namespace.as_ref().map_err(Clone::clone)?;
        let failed = |why| {
            detach_if_mounted(target);
            Err(why)
        };
        if let Err(error) = id_mapped_clone(source, target, namespace.as_fd()) {
            return failed(WhyNotMapped::Mount { directory: source.to_owned(), error: Arc::new(error) });
        }
        if !is_tree {
            let checked = mapper.not_stackable.get_or_init(|| {
                let error = kernel::check_stackable(target).err()?;
                Some(WhyNotMapped::NotStackable(Arc::new(error)))
            });
            if let Some(why) = checked {
                return failed(why.clone());
            }
        }
        Ok(())
    }

    /// Makes a copy of a directory with other owners.
    fn copy(&self, source: &Path, target: &Path, ids: &IdMaps, job: &Job) -> Result<(), SnapshotError> {
        let partial = target.with_file_name("partial");
        // What an earlier process, or an attempt that failed, did not finish.
        remove(&partial).map_err(io_error("remove", &partial))?;
        let copied = (|| {
            std::fs::create_dir(&partial).map_err(io_error("create", &partial))?;
            copy::copy(source, &partial, ids, &|| job.is_abandoned())
                .map_err(|error| SnapshotError::Unavailable(error.to_string()))?;
            // What has the final name is whole even after a power failure.
            let synced =
                std::fs::File::open(&partial).and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
            synced.map_err(io_error("sync", &partial))?;
            std::fs::rename(&partial, target).map_err(io_error("rename", &partial))
        })();
        if copied.is_err() {
            // The space may be what was lacking.
            let _ = remove(&partial);
        }
        copied
    }

    /// Takes down what was made for a container that is gone, all but the directory.
    pub(super) fn unmap(&self, of: u64, container: u64) {
        let job = self.id_mapper.job(container);
        job.abandoned.store(true, Ordering::Relaxed);
        // Until a copy that is under way has ended.
        let _single = job.single.blocking_lock();
        detach_if_mounted(&self.layout.mapped(of, container));
        self.remove_translated(of, container);
    }
}

/// Removes a directory with all that is in it, if there is one.
fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    Ok(remove_tree(std::fs::File::open(parent)?.as_fd(), name.as_encoded_bytes())?)
}
