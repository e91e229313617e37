//! Committing a layer that is ready.

use std::sync::Arc;

use super::error::{SnapshotError, io_error};
use super::pull::{LayerRequest, UnpackedLayer};
use super::record::{Record, RecordedMode};
use super::service::Snapshotter;
use super::store::{Commit, Kind, Labels, NewSnapshot, Node, StoreError, Usage};
use super::{labels, layout};
use crate::image::inherit::inherit;

/// A layer to be committed.
pub(super) struct NewLayer<'a> {
    pub(super) key: &'a str,
    /// The snapshot that it is committed over.
    pub(super) parent: String,
    pub(super) target: &'a str,
    pub(super) request: &'a LayerRequest,
    pub(super) given: Labels,
}

impl NewLayer<'_> {
    pub(super) fn record(&self, size: u64, mode: RecordedMode) -> Record {
        Record {
            image: self.request.reference.to_string(),
            manifest: self.request.manifest.clone(),
            layer: self.request.layer.clone(),
            size,
            mode,
            others: Vec::new(),
        }
    }
}

impl Snapshotter {
    /// Commits a layer that is ready.
    pub(super) async fn commit_layer(
        self: &Arc<Self>,
        layer: &NewLayer<'_>,
        size: u64,
        mode: RecordedMode,
        unpacked: Option<&UnpackedLayer>,
    ) -> Result<(), SnapshotError> {
        let mut given = layer.given.clone();
        given.insert(labels::NAMESPACE.to_owned(), layer.request.namespace.clone());
        given.insert(labels::HAS_INDEX.to_owned(), "true".to_owned());
        if matches!(mode, RecordedMode::Lazy { .. }) {
            given.insert(labels::REMOTE.to_owned(), labels::REMOTE_VALUE.to_owned());
        }
        let record = layer.record(size, mode).encode();
        let created = {
            let (key, parent, labels) = (layer.key.to_owned(), layer.parent.clone(), layer.given.clone());
            self.store(move |store| {
                let parent = Some(parent.as_str());
                store.create(NewSnapshot { kind: Kind::Active, key: &key, parent, labels, record: None })
            })
            .await?
        };
        let committed = async {
            let usage = match unpacked {
                Some(unpacked) => self.move_in(created.id, &created.parents, unpacked).await?,
                None => Usage::default(),
            };
            let (key, target) = (layer.key.to_owned(), layer.target.to_owned());
            self.store(move |store| {
                let commit = Commit { key: &key, name: &target, parent: None, labels: given, usage, record };
                match store.commit(commit.clone()) {
                    // The name is taken: by somebody who was faster, or over another parent. containerd looks for the
                    // label, not for the name.
                    Err(StoreError::AlreadyExists(_)) => {
                        store.commit(Commit { name: &format!("{target}/{}", created.id), ..commit })
                    }
                    committed => committed,
                }
            })
            .await
        };
        match committed.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let key = layer.key.to_owned();
                let _ = self.store(move |store| store.remove(&key)).await;
                self.removed.notify_one();
                Err(error)
            }
        }
    }

    /// Makes an unpacked layer the contents of a snapshot.
    async fn move_in(
        self: &Arc<Self>,
        id: u64,
        parents: &[Node],
        unpacked: &UnpackedLayer,
    ) -> Result<Usage, SnapshotError> {
        let UnpackedLayer { scratch, implied, .. } = unpacked;
        if !implied.is_empty() && !parents.is_empty() {
            let lower = self.lower(parents).await?.paths();
            let (scratch, implied) = (Arc::clone(scratch), Arc::clone(implied));
            let path = scratch.path().to_owned();
            let inheriting = tokio::task::spawn_blocking(move || inherit(scratch.path(), &implied, &lower));
            inheriting.await?.map_err(io_error("describe directories in", &path))?;
        }
        let target = self.layout.fs(id);
        self.layout.make(id, false).map_err(io_error("create", &target))?;
        // Renaming needs the name to be free or an empty directory.
        if !scratch.take(&target).map_err(io_error("move a layer to", &target))? {
            return Err(SnapshotError::Unavailable(
                "the unpacked layer was given to another snapshot".into(),
            ));
        }
        let usage = tokio::task::spawn_blocking(move || layout::usage(&target)).await?;
        usage.map_err(io_error("measure", &self.layout.fs(id)))
    }
}
