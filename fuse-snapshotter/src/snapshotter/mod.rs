//! The snapshotter that containerd talks to.
//!
//! [`store`] remembers which snapshots there are, whose children they are and how each is served; [`filter`] is the
//! language in which clients ask for some of them. [`Snapshotter`] does what containerd asks: `prepare` decides how a layer
//! is served, `mounts` says what a snapshot is stacked from, with the lazy layers of a chain merged into `trees`, `idmap`
//! gives containers in user namespaces directories with their own ids, and `cleanup` gives back what nobody uses any more.
//!
//! No transaction of the store is open while anything else is done: fetching, unpacking, mounting, measuring.

pub mod filter;
pub mod labels;
pub mod pull;
pub mod store;

mod cleanup;
mod error;
mod idmap;
mod keyed_lock;
mod layer_runs;
mod layout;
mod metrics;
mod mounts;
mod open;
mod options;
mod prepare;
mod rebase;
mod record;
mod restart;
mod root;
mod seek;
mod sources;
#[cfg(test)]
mod tests;
mod trees;

use std::sync::Arc;

use tokio::sync::Notify;

pub use error::SnapshotError;
pub use idmap::IdMapping;
pub use layout::Layout;
pub use mounts::Mount;
pub use options::{FetchOptions, Options, Settings, TreeOptions};
pub use record::{Mode, OtherSource, Record};
pub(crate) use restart::PLACEHOLDER;
pub(crate) use root::try_root;
pub use trees::Trees;

use crate::content::cache::CacheRoot;
use crate::foresight::recorded::{Prefetch, Start};
use crate::image::{LayerKey, OpenLayers};
use crate::snapshotter::pull::Images;
use filter::Filter;
use store::{Commit, Info, Kind, Labels, NewSnapshot, SnapshotStore, Usage};

/// A containerd snapshotter.
pub struct Snapshotter {
    layout: Layout,
    store: Arc<SnapshotStore>,
    layers: Arc<OpenLayers>,
    cache: Arc<CacheRoot>,
    images: Arc<Images>,
    trees: Arc<Trees>,
    prefetch: Arc<Prefetch>,
    overlay_options: Vec<String>,
    id_mapper: idmap::IdMapper,
    /// Something was removed.
    removed: Notify,
    /// The last clean-up had to leave something.
    left: std::sync::atomic::AtomicBool,
    /// Each layer is made by one request at a time; those for the same layer then find it there.
    turns: keyed_lock::KeyedLock,
    /// Where else layers are is noted by one at a time.
    noting: tokio::sync::Mutex<()>,
    /// One clean-up at a time.
    cleaning: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Snapshotter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshotter").field("root", &self.layout.root()).finish_non_exhaustive()
    }
}

impl Snapshotter {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &std::path::Path {
        self.layout.root()
    }

    /// The trees that are mounted.
    #[must_use]
    pub fn trees(&self) -> &Trees {
        &self.trees
    }

    /// The layers that are read lazily.
    #[must_use]
    pub fn layers(&self) -> &OpenLayers {
        &self.layers
    }

    /// Recordings of starts, and their replays.
    #[must_use]
    pub fn prefetch(&self) -> &Prefetch {
        &self.prefetch
    }

    /// What has been fetched.
    #[must_use]
    pub fn cache(&self) -> &CacheRoot {
        &self.cache
    }

    /// The store, for those who may wait for the disk.
    pub(crate) fn store_ref(&self) -> &SnapshotStore {
        &self.store
    }

    /// Calls the store on a thread that may wait for the disk.
    async fn store<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&SnapshotStore) -> Result<T, store::StoreError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let store = Arc::clone(&self.store);
        Ok(tokio::task::spawn_blocking(move || call(&store)).await??)
    }

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
        let usage = usage.map_err(error::io_error("measure", &self.layout.fs(snapshot.id)))?;
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
        self.store(move |store| store.list(&filter)).await
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
        measuring.map_err(error::io_error("measure", &self.layout.fs(snapshot.id)))
    }

    /// Makes an active snapshot or a view, and says how to mount it.
    async fn create(
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

    /// Tells those who record and replay starts of a snapshot that a container is made of, when its mounts are asked for. Not
    /// of one that a layer is unpacked into.
    fn container_starts(self: &Arc<Self>, snapshot: &store::Snapshot) {
        if snapshot.kind != Kind::Active || snapshot.record.is_some() {
            return;
        }
        let records: Vec<_> = snapshot.parents.iter().rev().filter_map(Record::of).collect();
        // Layers below may have been pulled for another image.
        let Some(top) = records.last() else { return };
        let index =
            records.iter().rev().filter(|record| record.manifest == top.manifest).find_map(Record::index);
        let Some(index) = index.or_else(|| records.iter().rev().find_map(Record::index)) else { return };
        // An image may have the same layer twice.
        let mut keys: Vec<LayerKey> = Vec::new();
        for key in records.iter().filter_map(Record::lazy) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        self.prefetch.starts(&Start {
            snapshot: snapshot.id,
            upper: self.layout.fs(snapshot.id),
            forest: self.trees.mounted(),
            image: top.image.clone(),
            manifest: top.manifest.clone(),
            index: index.clone(),
            layers: keys.iter().filter_map(|key| self.layers.get(key)).collect(),
        });
    }

    /// The directories of a snapshot that does not only consist of others'.
    fn make_directories(&self, snapshot: &store::Snapshot) -> Result<(), SnapshotError> {
        let path = self.layout.fs(snapshot.id);
        let later = rebase::gets_parent_later(snapshot);
        let work = snapshot.kind == Kind::Active && (later || !snapshot.parents.is_empty());
        let lower = if later { self.layout.make_lower(snapshot.id) } else { Ok(()) };
        let made = lower.and_then(|()| self.layout.make(snapshot.id, work));
        made.map_err(error::io_error("create", &path))
    }

    /// Gives a new upper directory the owner and mode of the root directory below it, which it hides.
    async fn inherit_root(self: &Arc<Self>, snapshot: &store::Snapshot) -> Result<(), SnapshotError> {
        if snapshot.parents.is_empty() {
            // The container's root is to own it.
            let (uid, gid) = idmap::mapped_owner(&snapshot.labels, 0, 0)?;
            let path = self.layout.fs(snapshot.id);
            return std::os::unix::fs::chown(&path, Some(uid), Some(gid))
                .map_err(error::io_error("chown", &path));
        }
        self.take_over_root(snapshot, &snapshot.parents).await
    }

    /// Gives the directory of a snapshot the owner and mode of the root directory that a chain of snapshots shows.
    async fn take_over_root(
        self: &Arc<Self>,
        snapshot: &store::Snapshot,
        chain: &[store::Node],
    ) -> Result<(), SnapshotError> {
        let lower = self.lower(chain).await?;
        let (Some((uid, gid)), Some(mode)) = (lower.owner()?, lower.mode()?) else { return Ok(()) };
        let (uid, gid) = idmap::mapped_owner(&snapshot.labels, uid, gid)?;
        let path = self.layout.fs(snapshot.id);
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(error::io_error("chown", &path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).map_err(error::io_error("chmod", &path))
    }
}

/// Whether this process has not the whole range of user ids, as in a rootless container.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    !map.is_empty()
        && (fields.next(), fields.next(), fields.next()) != (Some("0"), Some("0"), Some("4294967295"))
}
