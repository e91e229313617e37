//! Snapshots of containerd, made by its own service.

use std::collections::HashMap;

use containerd_api::services::snapshots::v1::snapshots_client::SnapshotsClient;
use containerd_api::services::snapshots::v1::{PrepareSnapshotRequest, ViewSnapshotRequest};
use containerd_api::types::Mount;

/// Makes a snapshot (writable, or a view) of a name over a parent, and returns its mounts. Unlike one that `ctr` makes it
/// is a root for containerd's garbage collection, so that it stays when others remove images.
pub(crate) fn make(
    socket: &str,
    namespace: &str,
    snapshotter: &str,
    (key, parent): (&str, &str),
    writable: bool,
) -> Vec<Mount> {
    let (snapshotter, key, parent) = (snapshotter.to_owned(), key.to_owned(), parent.to_owned());
    let labels = HashMap::from([("containerd.io/gc.root".to_owned(), "2020-01-01T00:00:00Z".to_owned())]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = SnapshotsClient::new(crate::cri::connect(socket.to_owned()).await);
        if writable {
            let request = PrepareSnapshotRequest { snapshotter, key, parent, labels };
            client.prepare(within(namespace, request)).await.unwrap().into_inner().mounts
        } else {
            let request = ViewSnapshotRequest { snapshotter, key, parent, labels };
            client.view(within(namespace, request)).await.unwrap().into_inner().mounts
        }
    })
}

fn within<T>(namespace: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("containerd-namespace", namespace.parse().unwrap());
    request
}
