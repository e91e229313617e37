//! A remote snapshotter that does what it is told, behind a real containerd: what `soci pull` tells it, and what it makes of
//! the answers.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use containerd_api::services::snapshots::v1 as api;
use containerd_api::services::snapshots::v1::snapshots_server::{Snapshots, SnapshotsServer};
use containerd_api::types::Mount;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use testdata::containerd::Options;
use testdata::image::{Image, MediaTypes};
use testdata::registry::TestRegistry;
use tonic::{Request, Response, Status};

use crate::common::Soci;
use crate::{image, outcomes};

const LAYER: &str = "containerd.io/snapshot/cri.layer-digest";
const TARGET: &str = "containerd.io/snapshot.ref";
const REMOTE: &str = "containerd.io/snapshot/remote";

/// Takes some layers over, and gives a directory for the others.
#[derive(Default)]
struct Fake {
    directory: PathBuf,
    lazy: HashSet<String>,
    local: HashSet<String>,
    snapshots: Mutex<HashMap<String, api::Info>>,
    /// Labels of all requests to prepare.
    asked: Mutex<Vec<HashMap<String, String>>>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Snapshots for Fake {
    async fn prepare(
        &self,
        request: Request<api::PrepareSnapshotRequest>,
    ) -> Answer<api::PrepareSnapshotResponse> {
        let api::PrepareSnapshotRequest { key, parent, mut labels, .. } = request.into_inner();
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(labels.clone());
            asked.len()
        };
        let layer = labels.get(LAYER).cloned().unwrap_or_default();
        let mut info =
            api::Info { name: key.clone(), parent, kind: api::Kind::Active.into(), ..api::Info::default() };
        if self.lazy.contains(&layer) || self.local.contains(&layer) {
            if self.lazy.contains(&layer) {
                labels.insert(REMOTE.to_owned(), "remote snapshot".to_owned());
            }
            info.name = labels[TARGET].clone();
            info.kind = api::Kind::Committed.into();
            info.labels = labels;
            self.snapshots.lock().unwrap().insert(info.name.clone(), info);
            return Err(Status::already_exists("target snapshot: already exists"));
        }
        info.labels = labels;
        let mut snapshots = self.snapshots.lock().unwrap();
        let source = self.directory.join(number.to_string());
        std::fs::create_dir(&source).unwrap();
        snapshots.insert(key, info);
        let mount = Mount {
            r#type: "bind".to_owned(),
            source: source.display().to_string(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
            ..Mount::default()
        };
        Ok(Response::new(api::PrepareSnapshotResponse { mounts: vec![mount] }))
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Answer<()> {
        let request = request.into_inner();
        let mut snapshots = self.snapshots.lock().unwrap();
        let mut info = snapshots.remove(&request.key).ok_or_else(|| Status::not_found("key"))?;
        info.name.clone_from(&request.name);
        info.kind = api::Kind::Committed.into();
        info.labels = request.labels;
        snapshots.insert(request.name, info);
        Ok(Response::new(()))
    }

    async fn stat(&self, request: Request<api::StatSnapshotRequest>) -> Answer<api::StatSnapshotResponse> {
        let info = self.snapshots.lock().unwrap().get(&request.into_inner().key).cloned();
        let info = Some(info.ok_or_else(|| Status::not_found("key"))?);
        Ok(Response::new(api::StatSnapshotResponse { info }))
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Answer<()> {
        let removed = self.snapshots.lock().unwrap().remove(&request.into_inner().key);
        removed.map(|_| Response::new(())).ok_or_else(|| Status::not_found("key"))
    }

    type ListStream = BoxStream<'static, Result<api::ListSnapshotsResponse, Status>>;

    /// containerd asks for the snapshot that was made under another name than its own.
    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let filters = request.into_inner().filters;
        let matches = |info: &&api::Info| {
            let target = info.labels.get(TARGET).map(String::as_str).unwrap_or("-");
            filters.is_empty() || filters.iter().any(|filter| filter.contains(&format!("=={target},")))
        };
        let info = self.snapshots.lock().unwrap().values().filter(matches).cloned().collect();
        let answer = Ok(api::ListSnapshotsResponse { info });
        Ok(Response::new(futures::stream::once(async { answer }).boxed()))
    }

    async fn view(&self, _: Request<api::ViewSnapshotRequest>) -> Answer<api::ViewSnapshotResponse> {
        Err(Status::unimplemented("view"))
    }

    async fn mounts(&self, _: Request<api::MountsRequest>) -> Answer<api::MountsResponse> {
        Err(Status::unimplemented("mounts"))
    }

    async fn update(&self, _: Request<api::UpdateSnapshotRequest>) -> Answer<api::UpdateSnapshotResponse> {
        Err(Status::unimplemented("update"))
    }

    async fn usage(&self, _: Request<api::UsageRequest>) -> Answer<api::UsageResponse> {
        Ok(Response::new(api::UsageResponse::default()))
    }

    async fn cleanup(&self, _: Request<api::CleanupRequest>) -> Answer<()> {
        Ok(Response::new(()))
    }
}

/// What `soci pull` reports, what the snapshotter was told, and which layers were downloaded.
struct Pulled {
    report: Value,
    again: Value,
    asked: Vec<HashMap<String, String>>,
    downloaded: Vec<usize>,
    image: Image,
    reference: String,
    text: String,
}

/// Pulls an image of four layers through a snapshotter that takes `lazy` and `local` over.
fn through(lazy: &[usize], local: &[usize]) -> Option<Pulled> {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let containerd = Options::new().proxy("soci", &socket).start()?;
    let registry = TestRegistry::builder().start_blocking();
    let image = image(MediaTypes::default());
    image.put_into(&registry, "app", "v1");
    let reference = format!("{}/app:v1", registry.host());
    let digests = |which: &[usize]| which.iter().map(|&i| image.layers()[i].digest.clone()).collect();
    let fake = Arc::new(Fake {
        directory: directory.path().to_owned(),
        lazy: digests(lazy),
        local: digests(local),
        ..Fake::default()
    });

    let incoming = futures::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let service = SnapshotsServer::from_arc(Arc::clone(&fake));
    runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));

    let soci = Soci::with_containerd(&containerd.address());
    let index = format!("--soci-index-digest={}", image.digest());
    let pull = || serde_json::from_str::<Value>(&soci.ok(&["pull", "--json", &index, &reference])).unwrap();
    let report = pull();
    let requests = registry.requests();
    let fetched = |layer: &&testdata::image::Layer| requests.iter().any(|r| r.path.ends_with(&layer.digest));
    let downloaded =
        image.layers().iter().enumerate().filter(|(_, layer)| fetched(layer)).map(|(i, _)| i).collect();
    let asked = fake.asked.lock().unwrap().clone();
    // What was taken over stays after a collection, and a second pull asks for nothing.
    containerd.collect_garbage();
    let again = pull();
    assert_eq!(fake.asked.lock().unwrap().len(), asked.len());
    containerd.ok(&["image", "rm", "--sync", &reference]);
    assert!(fake.snapshots.lock().unwrap().is_empty());
    let text = soci.ok(&["pull", &reference]);
    Some(Pulled { report, again, asked, downloaded, image, reference, text })
}

#[test]
fn layers_that_a_snapshotter_takes_over_are_not_downloaded() {
    let Some(pulled) = through(&[0, 3], &[1]) else { return };
    assert_eq!(outcomes(&pulled.report), ["lazy", "local", "downloaded", "lazy"]);
    assert_eq!(outcomes(&pulled.again), ["present"; 4]);
    assert_eq!(pulled.downloaded, [2]);
    let summary = "4 layers: 2 lazy, 1 unpacked by the snapshotter, 1 downloaded\n";
    assert!(pulled.text.ends_with(summary) && pulled.text.contains(": lazy\n"), "{}", pulled.text);

    let layers = pulled.image.layers();
    for (position, labels) in pulled.asked.iter().enumerate() {
        let list = |of: &dyn Fn(&testdata::image::Layer) -> String| {
            layers[position..].iter().map(of).collect::<Vec<_>>().join(",")
        };
        let chain_id = pulled.report["layers"][position]["chain_id"].as_str().unwrap();
        for (key, value) in [
            (TARGET, chain_id.to_owned()),
            ("containerd.io/snapshot/cri.image-ref", pulled.reference.clone()),
            (LAYER, layers[position].digest.clone()),
            ("containerd.io/snapshot/cri.manifest-digest", pulled.image.digest().to_owned()),
            ("containerd.io/snapshot/cri.image-layers", list(&|layer| layer.digest.clone())),
            ("containerd.io/snapshot/remote/soci.size", layers[position].size.to_string()),
            ("containerd.io/snapshot/remote/image.layers.size", list(&|layer| layer.size.to_string())),
            ("containerd.io/snapshot/remote/soci.index.digest", pulled.image.digest().to_owned()),
        ] {
            assert_eq!(labels.get(key), Some(&value), "{key}");
        }
    }
}

#[test]
fn what_a_snapshotter_hands_back_is_downloaded_as_by_an_ordinary_pull() {
    let Some(pulled) = through(&[], &[]) else { return };
    assert_eq!(outcomes(&pulled.report), ["downloaded"; 4]);
    assert_eq!(pulled.downloaded, [0, 1, 2, 3]);
    // A download that was begun ahead is of no use if the snapshotter takes that layer over, and does no harm.
    let Some(pulled) = through(&[3], &[]) else { return };
    assert_eq!(outcomes(&pulled.report), ["downloaded", "downloaded", "downloaded", "lazy"]);
}
