//! Containers in user namespaces: their layers with their own ids.
//!
//! A client that wants it labels the container's snapshot with the mapping. Each directory that the snapshot is stacked
//! from is then mounted once more with the ids mapped, for this container alone, and the upper directory belongs to the
//! container's root. All of it follows from the labels, so a restart changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::error::{SnapshotError, io_error};
use super::mounts::Lower;
use super::store::{Labels, Snapshot};
use super::{Snapshotter, labels};
use crate::fuse::{detach, is_mounted};
use crate::sys::id_mapped_clone;

/// Most ranges of a mapping; the kernel's own limit.
const MAX_RANGES: usize = 340;

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    /// First id inside the container.
    container: u32,
    /// First id outside.
    host: u32,
    /// How many.
    size: u32,
}

/// The mapping of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

fn parse(label: &str, text: &str) -> Result<Vec<IdRange>, SnapshotError> {
    let invalid = |reason: &str| SnapshotError::Invalid(format!("label {label}={text:?}: {reason}"));
    let mut ranges = Vec::new();
    for range in text.split(',') {
        let mut numbers = range.split(':').map(|number| number.trim().parse::<u32>());
        let (Some(Ok(container)), Some(Ok(host)), Some(Ok(size)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(invalid("a range is CONTAINER:HOST:SIZE"));
        };
        if size == 0 || container.checked_add(size - 1).is_none() || host.checked_add(size - 1).is_none() {
            return Err(invalid("a range is empty or ends beyond the largest id"));
        }
        ranges.push(IdRange { container, host, size });
    }
    if ranges.len() > MAX_RANGES {
        return Err(invalid("too many ranges"));
    }
    Ok(ranges)
}

fn map(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container)?;
        (offset < range.size).then(|| range.host + offset)
    })
}

impl Mapping {
    /// The mapping that a snapshot's labels ask for. One without the other is a mistake.
    pub(super) fn of(given: &Labels) -> Result<Option<Self>, SnapshotError> {
        match (given.get(labels::UID_MAPPING), given.get(labels::GID_MAPPING)) {
            (None, None) => Ok(None),
            (Some(uids), Some(gids)) => Ok(Some(Self {
                uids: parse(labels::UID_MAPPING, uids)?,
                gids: parse(labels::GID_MAPPING, gids)?,
            })),
            _ => Err(SnapshotError::Invalid(format!(
                "labels {} and {} go together",
                labels::UID_MAPPING,
                labels::GID_MAPPING
            ))),
        }
    }
}

/// The owner that a container with these labels sees as `uid` and `gid`.
pub(super) fn mapped_owner(given: &Labels, uid: u32, gid: u32) -> Result<(u32, u32), SnapshotError> {
    let Some(mapping) = Mapping::of(given)? else { return Ok((uid, gid)) };
    match (map(&mapping.uids, uid), map(&mapping.gids, gid)) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(SnapshotError::Invalid(format!(
            "the root directory belongs to {uid}:{gid}, which is not mapped"
        ))),
    }
}

/// Makes user namespaces, which stand for mappings where the kernel wants one.
#[derive(Debug)]
pub(super) struct UserNamespaces {
    program: (PathBuf, Vec<String>),
}

impl UserNamespaces {
    /// `program` enters a new user namespace, says so with a byte on its standard output, and waits for its standard input to
    /// end. A thread of this process could not: a process with several threads stays in its namespace.
    pub(super) fn new(program: (PathBuf, Vec<String>)) -> Self {
        Self { program }
    }

    /// A user namespace with this mapping.
    fn create(&self, mapping: &Mapping) -> io::Result<OwnedFd> {
        let (path, arguments) = &self.program;
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let opened = (|| {
            let mut ready = [0];
            let output = child.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            output.read_exact(&mut ready)?;
            let process = PathBuf::from(format!("/proc/{}", child.id()));
            std::fs::write(process.join("uid_map"), table(&mapping.uids))?;
            std::fs::write(process.join("gid_map"), table(&mapping.gids))?;
            Ok(OwnedFd::from(File::open(process.join("ns/user"))?))
        })();
        drop(child.stdin.take());
        let _ = child.kill();
        child.wait()?;
        opened
    }
}

/// A mapping as the kernel reads it.
fn table(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.container, range.host, range.size)).collect()
}

/// Whoever mounts directories for a container holds this, so that none is mounted twice.
#[derive(Debug, Default)]
pub(super) struct Mapped(tokio::sync::Mutex<()>);

impl Snapshotter {
    /// Replaces the directories that a snapshot is stacked from by ones with the ids of its container.
    pub(super) async fn map_ids(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        lower: &mut Lower,
    ) -> Result<(), SnapshotError> {
        let Some(mapping) = Mapping::of(&snapshot.labels)? else { return Ok(()) };
        let _single = self.mapped.0.lock().await;
        let (snapshotter, directories, container) =
            (Arc::clone(self), lower.directories.clone(), snapshot.id);
        let mapping =
            tokio::task::spawn_blocking(move || snapshotter.mount_mapped(&mapping, &directories, container));
        lower.directories = mapping.await??;
        Ok(())
    }

    fn mount_mapped(
        &self,
        mapping: &Mapping,
        directories: &[(u64, PathBuf)],
        container: u64,
    ) -> Result<Vec<(u64, PathBuf)>, SnapshotError> {
        let mut namespace = None;
        let mut mapped = Vec::with_capacity(directories.len());
        for (id, source) in directories {
            let target = self.layout.mapped(*id, container);
            self.layout.make_mapped(*id, container).map_err(io_error("create", &target))?;
            if !is_mounted(&target) {
                let namespace = match &namespace {
                    Some(namespace) => namespace,
                    None => {
                        let created = self.user_namespaces.create(mapping);
                        namespace.insert(created.map_err(io_error("make a user namespace for", &target))?)
                    }
                };
                id_mapped_clone(source, &target, namespace.as_fd()).map_err(|error| {
                    if is_mounted(&target) {
                        detach(&target);
                    }
                    SnapshotError::Unavailable(format!(
                        "cannot map the ids of {}: {error} (ids of lazy layers need Linux 6.12, those of others 5.19)",
                        source.display()
                    ))
                })?;
            }
            mapped.push((*id, target));
        }
        Ok(mapped)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labels(uids: &str, gids: &str) -> Labels {
        Labels::from([
            (super::labels::UID_MAPPING.to_owned(), uids.to_owned()),
            (super::labels::GID_MAPPING.to_owned(), gids.to_owned()),
        ])
    }

    #[test]
    fn owners_are_mapped() {
        let labels = labels("0:100000:1000,1000:500000:2", "0:7:1");
        assert_eq!(mapped_owner(&labels, 0, 0).unwrap(), (100_000, 7));
        assert_eq!(mapped_owner(&labels, 1001, 0).unwrap(), (500_001, 7));
        assert!(mapped_owner(&labels, 1002, 0).is_err());
        assert!(mapped_owner(&labels, 0, 1).is_err());
        assert_eq!(mapped_owner(&Labels::new(), 5, 6).unwrap(), (5, 6));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "0:1", "0:1:2:3", "a:b:c", "0:0:0", "0:4294967295:2", "-1:0:1", "0:1:2,"] {
            assert!(Mapping::of(&labels(text, "0:0:1")).is_err(), "{text}");
        }
        assert!(Mapping::of(&Labels::from([(super::labels::UID_MAPPING.into(), "0:0:1".into())])).is_err());
    }

    #[test]
    fn the_kernel_gets_a_line_for_each_range() {
        let mapping = Mapping::of(&labels("0:100:10,10:200:5", "0:0:1")).unwrap().unwrap();
        assert_eq!(table(&mapping.uids), "0 100 10\n10 200 5\n");
    }
}
