//! What containerd asks of a snapshotter, all but `prepare`.

use std::sync::Arc;

use super::error::{SnapshotError, io_error};
use super::filter::Filter;
use super::mounts::Mount;
use super::record::Record;
use super::service::Snapshotter;
use super::store::{Commit, Info, Kind, Labels, NewSnapshot, Usage};
use super::{layout, rebase};

impl Snapshotter {
    /// Makes a view of a committed snapshot.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn view(
        self: &Arc<Self>,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        self.create(Kind::View, key, parent, labels, None).await
    }

    /// The mounts of an active snapshot or a view.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn mounts(self: &Arc<Self>, key: &str) -> Result<Vec<Mount>, SnapshotError> {
        let snapshot = {
            let key = key.to_owned();
            self.store(move |store| store.get(&key)).await?
        };
        self.make_directories(&snapshot)?;
        let mounts = self.mounts_of(&snapshot).await?;
        self.container_starts(&snapshot);
        Ok(mounts)
    }

    /// Makes an active snapshot a committed one.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn commit(
        self: &Arc<Self>,
        name: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<(), SnapshotError> {
        let snapshot = {
            let key = key.to_owned();
            self.store(move |store| store.get_any(&key)).await?
        };
        let path = self.layout.fs(snapshot.id);
        // Measured before the transaction: nobody waits for it.
        let usage = match snapshot.kind {
            Kind::Active => tokio::task::spawn_blocking(move || layout::usage(&path)).await?,
            _ => Ok(Usage::default()),
        };
        let usage = usage.map_err(io_error("measure", &self.layout.fs(snapshot.id)))?;
        if !parent.is_empty() && rebase::gets_parent_later(&snapshot) {
            self.inherit_root_late(&snapshot, parent).await?;
        }
        let (name, key, parent) = (name.to_owned(), key.to_owned(), parent.to_owned());
        self.store(move |store| {
            store.commit(Commit {
                key: &key,
                name: &name,
                parent: Some(&parent).filter(|parent| !parent.is_empty()).map(String::as_str),
                labels,
                usage,
                record: None,
            })
        })
        .await?;
        Ok(())
    }

    /// Removes a snapshot. Its directories go at the next clean-up, which is soon.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn remove(self: &Arc<Self>, key: &str) -> Result<(), SnapshotError> {
        let key = key.to_owned();
        let removed = self.store(move |store| store.remove(&key)).await?;
        let record = removed.record.as_deref().and_then(|json| Record::decode(json, "removed"));
        if let Some(record) = record {
            self.images.cancel(&record.manifest);
            self.prefetch.cancel(&record.manifest);
        }
        self.removed.notify_one();
        Ok(())
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn stat(self: &Arc<Self>, key: &str) -> Result<Info, SnapshotError> {
        let key = key.to_owned();
        self.store(move |store| store.stat(&key)).await
    }

    /// Changes labels.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn update(
        self: &Arc<Self>,
        name: &str,
        labels: Labels,
        paths: Vec<String>,
    ) -> Result<Info, SnapshotError> {
        let name = name.to_owned();
        self.store(move |store| store.update(&name, &labels, &paths)).await
    }

    /// All snapshots that one of the filters matches.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn list(self: &Arc<Self>, filters: &[String]) -> Result<Vec<Info>, SnapshotError> {
        let filter = Filter::parse(filters).map_err(|error| SnapshotError::Invalid(error.to_string()))?;
        self.store(move |store| store.list(|info| filter.matches(info))).await
    }

    /// The space that a snapshot takes.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn usage(self: &Arc<Self>, key: &str) -> Result<Usage, SnapshotError> {
        let key = key.to_owned();
        let (snapshot, stored) =
            self.store(move |store| Ok((store.get_any(&key)?, store.usage(&key)?))).await?;
        if snapshot.kind != Kind::Active {
            return Ok(stored);
        }
        let path = self.layout.fs(snapshot.id);
        let measuring = tokio::task::spawn_blocking(move || layout::usage(&path)).await?;
        measuring.map_err(io_error("measure", &self.layout.fs(snapshot.id)))
    }

    /// Makes an active snapshot or a view, and says how to mount it.
    pub(super) async fn create(
        self: &Arc<Self>,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: Labels,
        record: Option<Vec<u8>>,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let snapshot = {
            let (key, parent) = (key.to_owned(), parent.to_owned());
            self.store(move |store| {
                store.create(NewSnapshot { kind, key: &key, parent: Some(&parent), labels, record })?;
                store.get(&key)
            })
            .await?
        };
        let made = async {
            self.make_directories(&snapshot)?;
            if kind == Kind::Active {
                self.inherit_root(&snapshot).await?;
            }
            let mounts = self.mounts_of(&snapshot).await?;
            self.container_starts(&snapshot);
            Ok::<_, SnapshotError>(mounts)
        };
        match made.await {
            Ok(mounts) => Ok(mounts),
            Err(error) => {
                // As if it had never been: containerd will try with another key.
                let key = key.to_owned();
                let _ = self.store(move |store| store.remove(&key)).await;
                self.removed.notify_one();
                Err(error)
            }
        }
    }
}
