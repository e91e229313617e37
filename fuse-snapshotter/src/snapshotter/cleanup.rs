//! Giving back what nobody uses any more.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use registry::Digest;

use super::error::{SnapshotError, io_error};
use super::layout::Name;
use super::record::Record;
use super::service::Snapshotter;
use super::store::SnapshotStore;
use crate::fronts::mount_point::is_mounted;
use crate::image::LayerKey;

/// How long after a removal the clean-up begins if containerd does not ask for it: it removes many in a row.
const PAUSE: Duration = Duration::from_millis(500);

/// How often pulls that nobody goes on with are looked for.
const EXPIRY: Duration = Duration::from_secs(30);

impl Snapshotter {
    /// Removes directories, trees, layers and caches of snapshots that are no more.
    ///
    /// # Errors
    /// See [`SnapshotError`]. What could not be removed is tried again next time.
    pub async fn cleanup(self: &Arc<Self>) -> Result<(), SnapshotError> {
        let _single = self.cleaning.lock().await;
        let snapshotter = Arc::clone(self);
        tokio::task::spawn_blocking(move || snapshotter.clean()).await?
    }

    pub(super) fn clean(&self) -> Result<(), SnapshotError> {
        // In this order: a snapshot is in the store before it has a directory.
        let directories =
            self.layout.list().map_err(io_error("list directories below", self.layout.root()))?;
        let ids = self.store.ids()?;
        for (name, path) in directories {
            if !name.is_orphan(|id| ids.contains_key(&id)) {
                continue;
            }
            match name {
                Name::Snapshot(id) => {
                    self.trees.remove(id);
                    if is_mounted(&path.join("fs")) {
                        tracing::warn!(directory = %path.display(), "still mounted; trying again at the next clean-up");
                        continue;
                    }
                    remove(&path);
                }
                Name::Mapped { of, container } => {
                    self.unmap(of, container);
                    remove_mapped(&path);
                }
            }
        }
        let collected = self.layers.collect(|| used_layers(&self.store))?;
        self.left.store(collected.held, Ordering::Relaxed);
        if let Err(error) = self.prefetch.collect(&images(&self.store)?) {
            tracing::warn!(%error, "cannot look for recordings that are not needed; trying again at the next clean-up");
        }
        self.forget_metrics()?;
        self.forget_mapped_layers()?;
        if !collected.removed.is_empty() {
            tracing::info!(layers = collected.removed.len(), "gave back the space of unused layers");
        }
        Ok(())
    }

    /// Cleans up after removals, for as long as the snapshotter lives.
    pub async fn keep_clean(self: Arc<Self>) {
        loop {
            let expired = tokio::select! {
                () = self.removed.notified() => {
                    tokio::time::sleep(PAUSE).await;
                    true
                }
                () = tokio::time::sleep(EXPIRY) => self.images.expire() || self.left.load(Ordering::Relaxed),
            };
            if expired && let Err(error) = self.cleanup().await {
                tracing::warn!(%error, "clean-up failed; trying again at the next removal");
            }
        }
    }
}

/// The manifests of the images that snapshots were pulled for.
fn images(store: &SnapshotStore) -> Result<HashSet<Digest>, SnapshotError> {
    let records = store.records()?;
    Ok(records
        .iter()
        .filter_map(|(key, json)| Record::decode(json, key))
        .map(|record| record.manifest)
        .collect())
}

/// The layers of all snapshots that are read lazily.
fn used_layers(store: &SnapshotStore) -> Result<HashSet<LayerKey>, SnapshotError> {
    let mut used = HashSet::new();
    for (key, json) in store.records()? {
        // What a record does not say might be in use.
        let record = Record::decode(&json, &key)
            .ok_or_else(|| SnapshotError::Internal(format!("the record of snapshot {key} is damaged")))?;
        used.extend(record.lazy());
    }
    Ok(used)
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %path.display(), %error, "cannot remove");
    }
}

/// Removes a directory of [`Name::Mapped`], with the copies in it, but nothing that is mounted there: a layer that is
/// (again) is writable, and other containers use it.
fn remove_mapped(path: &Path) {
    let mount_point = path.join("fs");
    match std::fs::remove_dir(&mount_point) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(directory = %mount_point.display(), %error, "cannot remove; trying again at the next clean-up");
        }
        _ => remove(path),
    }
}
