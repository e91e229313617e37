//! The gRPC side: a thin adapter from `containerd.services.snapshots.v1` to [`Snapshotter`].

mod calls;
mod control;
mod listen;
mod status;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use containerd_api::services::snapshots::v1::snapshots_server::{Snapshots, SnapshotsServer};
use containerd_api::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest,
    UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use containerd_api::types;
use futures::Stream;
use tonic::{Request, Response, Status};

pub use calls::{Calls, Counted};
pub use control::{ControlClient, ControlServer};
pub use listen::{Listener, bind};

use crate::snapshotter::{Mount, Prepared, Snapshotter, store};
use status::{ready, status};

/// Largest message that is received, in bytes; containerd's own limit.
const MAX_MESSAGE: usize = 16 << 20;

/// Snapshots in one message of a listing.
const BATCH: usize = 100;

/// [`Snapshotter`] as a gRPC service.
#[derive(Debug, Clone)]
pub struct SnapshotService {
    snapshotter: Arc<Snapshotter>,
}

impl SnapshotService {
    /// The service, to be added to a server.
    #[must_use]
    pub fn server(snapshotter: Arc<Snapshotter>) -> SnapshotsServer<Self> {
        SnapshotsServer::new(Self { snapshotter }).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// containerd's namespace, from the request's metadata.
fn namespace_header<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("containerd-namespace")?.to_str().ok()?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// containerd's namespace, from the key: containerd makes that of its namespace, a number, and the client's key. Some versions
/// of 1.6 send no metadata.
fn namespace_of_key(key: &str) -> Option<&str> {
    let (namespace, rest) = key.split_once('/')?;
    let (number, _) = rest.split_once('/')?;
    (!namespace.is_empty() && number.parse::<u64>().is_ok()).then_some(namespace)
}

fn mounts(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let mount = |mount: Mount| types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: String::new(),
        options: mount.options,
    };
    mounts.into_iter().map(mount).collect()
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn info(info: store::Info) -> Info {
    let kind = match info.kind {
        store::Kind::View => Kind::View,
        store::Kind::Active => Kind::Active,
        store::Kind::Committed => Kind::Committed,
    };
    Info {
        name: info.name,
        parent: info.parent,
        kind: kind.into(),
        created_at: Some(timestamp(info.created)),
        updated_at: Some(timestamp(info.updated)),
        labels: info.labels.into_iter().collect(),
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// Runs a request to its end even if the client goes away: half of a snapshot is worth nothing.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, crate::snapshotter::SnapshotError>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(|error| status(&error)),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

#[tonic::async_trait]
impl Snapshots for SnapshotService {
    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn prepare(&self, request: Request<PrepareSnapshotRequest>) -> Answer<PrepareSnapshotResponse> {
        let header = namespace_header(&request);
        let PrepareSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let namespace = header.or_else(|| namespace_of_key(&key).map(str::to_owned));
        tracing::debug!(key, parent, namespace, "prepare");
        let snapshotter = Arc::clone(&self.snapshotter);
        let prepared = finish(async move {
            snapshotter.prepare(namespace.as_deref(), &key, &parent, labels.into_iter().collect()).await
        });
        match prepared.await? {
            Prepared::Mounts(made) => Ok(Response::new(PrepareSnapshotResponse { mounts: mounts(made) })),
            Prepared::Ready(target) => Err(ready(&target)),
        }
    }

    async fn view(&self, request: Request<ViewSnapshotRequest>) -> Answer<ViewSnapshotResponse> {
        let ViewSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        tracing::debug!(key, parent, "view");
        let snapshotter = Arc::clone(&self.snapshotter);
        let made = finish(async move { snapshotter.view(&key, &parent, labels.into_iter().collect()).await });
        Ok(Response::new(ViewSnapshotResponse { mounts: mounts(made.await?) }))
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Answer<MountsResponse> {
        let key = request.into_inner().key;
        tracing::debug!(key, "mounts");
        let snapshotter = Arc::clone(&self.snapshotter);
        let found = finish(async move { snapshotter.mounts(&key).await });
        Ok(Response::new(MountsResponse { mounts: mounts(found.await?) }))
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Answer<()> {
        let CommitSnapshotRequest { name, key, labels, parent, .. } = request.into_inner();
        tracing::debug!(key, name, "commit");
        let snapshotter = Arc::clone(&self.snapshotter);
        finish(async move { snapshotter.commit(&name, &key, &parent, labels.into_iter().collect()).await })
            .await?;
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Answer<()> {
        let key = request.into_inner().key;
        tracing::debug!(key, "remove");
        let snapshotter = Arc::clone(&self.snapshotter);
        finish(async move { snapshotter.remove(&key).await }).await?;
        Ok(Response::new(()))
    }

    async fn stat(&self, request: Request<StatSnapshotRequest>) -> Answer<StatSnapshotResponse> {
        let key = request.into_inner().key;
        let found = self.snapshotter.stat(&key).await.map_err(|error| status(&error))?;
        Ok(Response::new(StatSnapshotResponse { info: Some(info(found)) }))
    }

    async fn update(&self, request: Request<UpdateSnapshotRequest>) -> Answer<UpdateSnapshotResponse> {
        let UpdateSnapshotRequest { info: given, update_mask, .. } = request.into_inner();
        let Some(given) = given else {
            return Err(Status::invalid_argument("the snapshot is missing: invalid argument"));
        };
        let labels: HashMap<_, _> = given.labels.into_iter().collect();
        let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
        let snapshotter = Arc::clone(&self.snapshotter);
        let updated = finish(async move { snapshotter.update(&given.name, labels, paths).await }).await?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(info(updated)) }))
    }

    async fn list(&self, request: Request<ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let filters = request.into_inner().filters;
        let found = self.snapshotter.list(&filters).await.map_err(|error| status(&error))?;
        let mut found = found.into_iter().map(info);
        // Sent as fast as the client reads; the store was asked once.
        let batches = std::iter::from_fn(move || {
            let info: Vec<_> = found.by_ref().take(BATCH).collect();
            (!info.is_empty()).then_some(Ok(ListSnapshotsResponse { info }))
        });
        Ok(Response::new(Box::pin(futures::stream::iter(batches))))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Answer<UsageResponse> {
        let key = request.into_inner().key;
        let usage = self.snapshotter.usage(&key).await.map_err(|error| status(&error))?;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Ok(Response::new(UsageResponse { size: number(usage.size), inodes: number(usage.inodes) }))
    }

    async fn cleanup(&self, _request: Request<CleanupRequest>) -> Answer<()> {
        let snapshotter = Arc::clone(&self.snapshotter);
        finish(async move { snapshotter.cleanup().await }).await?;
        Ok(Response::new(()))
    }
}

#[cfg(test)]
mod tests {
    use super::namespace_of_key;

    #[test]
    fn the_namespace_is_the_first_part_of_a_key_of_containerds() {
        assert_eq!(namespace_of_key("k8s.io/12/extract-1 sha256:ab/c"), Some("k8s.io"));
        for other in ["", "key", "a/b", "a/b/c", "/1/c", "a/1"] {
            assert_eq!(namespace_of_key(other), None, "{other}");
        }
    }
}
