//! What a start finds of the process before it, and what an end leaves behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;

use super::layout::Layout;
use super::service::Snapshotter;
use super::store::Kind;
use crate::base::sys::MountLine;
use crate::fronts::mount_point::detach;

/// Trees that are mounted again at the same time.
const PARALLEL: usize = 4;

/// Detaches whatever is mounted below the snapshotter's directories: the process that served it is gone. Returns how
/// many.
pub(super) fn detach_all(layout: &Layout) -> usize {
    let mut found = mounts_below(&layout.mounts());
    // The last mounted first.
    found.reverse();
    found.iter().for_each(|path| detach(path));
    found.len()
}

/// Mount points below a directory, in the order of mounting.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points = MountLine::all(&table).map(|mount| mount.point());
    points.filter(|path| path.starts_with(directory) && path != directory).collect()
}

impl Snapshotter {
    /// Mounts the trees again that containers and views are made of, several at a time. The others come when they are
    /// asked for. The network is not needed for that.
    pub async fn restore(self: Arc<Self>) {
        let started = std::time::Instant::now();
        let wanted = self
            .store(|store| {
                let ids = store.ids()?;
                let of = |(key, kind): (String, Kind)| (kind != Kind::Committed).then_some(key);
                let keys = ids.into_values().filter_map(of);
                keys.map(|key| store.get(&key)).collect::<Result<Vec<_>, _>>()
            })
            .await;
        let snapshots = match wanted {
            Ok(snapshots) => snapshots,
            Err(error) => return tracing::error!(%error, "cannot mount snapshots again"),
        };
        let count = snapshots.len();
        let restoring = futures::stream::iter(snapshots).for_each_concurrent(PARALLEL, |snapshot| {
            let snapshotter = Arc::clone(&self);
            async move {
                if let Err(error) = snapshotter.mounts_of(&snapshot).await {
                    tracing::error!(snapshot = snapshot.key, %error, "cannot mount the snapshot again");
                }
            }
        });
        restoring.await;
        if count > 0 {
            let milliseconds = started.elapsed().as_millis() as u64;
            tracing::info!(snapshots = count, trees = self.trees.len(), milliseconds, "mounted trees again");
        }
    }

    /// Takes everything down, before the process ends for good.
    pub fn unmount_all(&self) {
        self.prefetch.close();
        self.trees.unmount_all();
        detach_all(&self.layout);
    }

    /// Before the process ends to be started again: trees stay mounted, for those who look at them now will look again.
    /// If there are none, nothing stays.
    pub fn leave(&self) {
        self.prefetch.close();
        if self.trees.is_empty() {
            self.unmount_all();
        } else {
            self.trees.leave();
        }
    }
}
