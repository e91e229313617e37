//! Snapshots, and applying layers to them.

use containerd_api::services::diff::v1::ApplyRequest;
use containerd_api::services::diff::v1::diff_client::DiffClient;
use containerd_api::services::snapshots::v1 as api;
use containerd_api::services::snapshots::v1::snapshots_client::SnapshotsClient;
use containerd_api::types::Mount;
use registry::{Descriptor, Digest};
use tonic::Code;

use super::connection::{Containerd, PATIENCE, call, found, message_of};
use super::error::ContainerdError;
use super::labels::Labels;

/// A snapshot that is there.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Labels.
    pub labels: Labels,
    /// Whether it is complete.
    pub committed: bool,
}

/// What came of preparing a snapshot.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// It is to be filled by these mounts, and committed.
    Mounts(Vec<Mount>),
    /// The snapshotter has the committed snapshot already, or made it just now.
    Exists,
}

impl Containerd {
    fn snapshots(&self) -> SnapshotsClient<tonic::transport::Channel> {
        SnapshotsClient::new(self.channel())
    }

    /// The snapshot with this name.
    ///
    /// # Errors
    /// When there is no such snapshotter, or it does not answer.
    pub async fn snapshot(&self, snapshotter: &str, key: &str) -> Result<Option<Snapshot>, ContainerdError> {
        let message = api::StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let request = self.request(message);
        let answer = call("look up a snapshot", Some(PATIENCE), self.snapshots().stat(request)).await;
        Ok(found(answer)?
            .and_then(|answer| answer.info)
            .map(|info| Snapshot { committed: info.kind() == api::Kind::Committed, labels: info.labels }))
    }

    /// Prepares a snapshot on `parent` (empty for none). A remote snapshotter that is told by a label which layer it is
    /// to hold may take as long as it needs to get it.
    ///
    /// # Errors
    /// When the snapshotter refuses.
    pub async fn prepare(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Prepared, ContainerdError> {
        let message = api::PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let request = self.request(message);
        match call("prepare a snapshot", None, self.snapshots().prepare(request)).await {
            Ok(answer) => Ok(Prepared::Mounts(answer.mounts)),
            Err(error) if error.already_exists() => Ok(Prepared::Exists),
            Err(error) => Err(error),
        }
    }

    /// Commits the active snapshot `key` as `name`. One that is there already is as good; `key` is removed then.
    ///
    /// # Errors
    /// When the snapshotter refuses.
    pub async fn commit(
        &self,
        snapshotter: &str,
        name: &str,
        key: &str,
        labels: Labels,
    ) -> Result<(), ContainerdError> {
        let message = api::CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels,
            parent: String::new(),
        };
        let request = self.request(message);
        // Some snapshotters add up the files of the layer first.
        match call("commit a snapshot", None, self.snapshots().commit(request)).await {
            Err(error) if error.already_exists() => self.remove_snapshot(snapshotter, key).await,
            other => other.map(|_| ()),
        }
    }

    /// Removes a snapshot; one that is gone is as good.
    ///
    /// # Errors
    /// When the snapshotter refuses.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), ContainerdError> {
        let message = api::RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let request = self.request(message);
        found(call("remove a snapshot", Some(PATIENCE), self.snapshots().remove(request)).await)?;
        Ok(())
    }

    /// Unpacks a layer of the content store onto `mounts`, and returns the digest of the uncompressed layer.
    ///
    /// # Errors
    /// When the layer is not there or cannot be unpacked.
    pub async fn apply(&self, layer: &Descriptor, mounts: Vec<Mount>) -> Result<Digest, ContainerdError> {
        let operation = format!("unpack layer {}", layer.digest);
        let request = self.request(ApplyRequest { diff: Some(message_of(layer)), mounts });
        let answer = call(&operation, None, DiffClient::new(self.channel()).apply(request)).await?;
        let digest = answer.applied.map(|applied| applied.digest).unwrap_or_default();
        digest.parse().map_err(|_| ContainerdError::Damaged {
            digest: layer.digest.clone(),
            problem: "was unpacked, and containerd does not say to what".into(),
        })
    }

    /// Makes sure that there is a snapshotter of this name, and that it works.
    ///
    /// # Errors
    /// [`ContainerdError::NoSnapshotter`] with the names of those that do; what the snapshotter answers.
    pub async fn check_snapshotter(&self, name: &str) -> Result<(), ContainerdError> {
        // A name that no snapshot has: what counts is who answers.
        match self.snapshot(name, "soci-check").await {
            Ok(_) => return Ok(()),
            Err(error) if !matches!(error.code(), Some(Code::InvalidArgument | Code::Unknown)) => {
                return Err(error);
            }
            Err(_) => {}
        }
        let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
        let plugins = self.plugins_matching(filters).await?;
        let mut available: Vec<&str> =
            plugins.iter().filter(|plugin| plugin.error.is_none()).map(|plugin| plugin.id.as_str()).collect();
        available.sort_unstable();
        let reason = plugins
            .iter()
            .filter(|plugin| plugin.id == name)
            .find_map(|plugin| plugin.error.as_ref())
            .map(|error| format!(" that works ({error})"))
            .unwrap_or_default();
        Err(ContainerdError::NoSnapshotter {
            name: crate::text::excerpt(name),
            reason,
            available: crate::text::excerpt(&available.join(", ")),
        })
    }
}
