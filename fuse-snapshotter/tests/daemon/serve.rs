//! What it says while it serves: metrics and logs.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use containerd_api::services::snapshots::v1::snapshots_client::SnapshotsClient;
use containerd_api::services::snapshots::v1::{
    ListSnapshotsRequest, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    ViewSnapshotRequest,
};
use rustix::process::Signal;
use testdata::free_port::free_port;
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder};
use testdata::need::{Need, available};
use testdata::registry::{Auth, TestRegistry};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::process::{Home, eventually};

const CHAIN: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// Pushes an image of one layer, and its index.
pub(crate) fn publish(home: &Home, registry: &TestRegistry) -> Image {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::file("hello", "hello\n"));
    let image = ImageBuilder::new().layer(layer.finish()).build();
    image.put_into(registry, "app", "1");
    let soci = Path::new(env!("CARGO_BIN_EXE_soci-snapshotter-grpc")).with_file_name("soci");
    assert!(soci.exists(), "build the workspace's programs first");
    let output = Command::new(soci)
        .arg("--root")
        .arg(home.path("soci"))
        .args(["create", "--push", "--min-layer-size", "0"])
        .arg(format!("docker://{}/app:1", registry.host()))
        .env("HOME", home.path(""))
        .env_remove("DOCKER_CONFIG")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    image
}

/// containerd's side.
pub(crate) struct Pull {
    runtime: tokio::runtime::Runtime,
    client: SnapshotsClient<Channel>,
}

type Call = tokio::task::JoinHandle<Result<PrepareSnapshotResponse, Status>>;

impl Pull {
    pub(crate) fn connect(path: &Path) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let path = path.to_owned();
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let path: PathBuf = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        let channel = runtime.block_on(endpoint.connect_with_connector(connector)).unwrap();
        Self { runtime, client: SnapshotsClient::new(channel) }
    }

    pub(crate) fn list(&self) {
        let mut client = self.client.clone();
        self.runtime.block_on(client.list(ListSnapshotsRequest::default())).unwrap();
    }

    pub(crate) fn prepare_later(&self, registry: &TestRegistry, image: &Image) -> Call {
        let labels = [
            ("containerd.io/snapshot.ref", CHAIN.to_owned()),
            ("containerd.io/snapshot/cri.image-ref", format!("{}/app:1", registry.host())),
            ("containerd.io/snapshot/cri.layer-digest", image.layers()[0].digest.clone()),
            ("containerd.io/snapshot/cri.manifest-digest", image.digest().to_owned()),
        ];
        let labels: HashMap<_, _> =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let key = "default/1/extract".to_owned();
        let request =
            PrepareSnapshotRequest { snapshotter: "soci".into(), key, parent: String::new(), labels };
        let mut client = self.client.clone();
        self.runtime.spawn(async move { client.prepare(request).await.map(tonic::Response::into_inner) })
    }

    pub(crate) fn wait(&self, call: Call) -> Result<PrepareSnapshotResponse, Status> {
        self.runtime.block_on(call).unwrap()
    }

    /// Prepares the image's layer, which must become a lazy one.
    fn prepare(&self, registry: &TestRegistry, image: &Image) {
        let status = self.wait(self.prepare_later(registry, image)).unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    }

    /// Makes a view of the layer; where it is mounted.
    pub(crate) fn view(&self, _image: &Image) -> PathBuf {
        let request = ViewSnapshotRequest {
            snapshotter: "soci".into(),
            key: "default/2/view".into(),
            parent: CHAIN.into(),
            ..ViewSnapshotRequest::default()
        };
        let mut client = self.client.clone();
        let response = self.runtime.block_on(client.view(request)).unwrap().into_inner();
        PathBuf::from(&response.mounts[0].source)
    }

    fn remove(&self, key: &str) {
        let request = RemoveSnapshotRequest { snapshotter: "soci".into(), key: key.into() };
        let mut client = self.client.clone();
        self.runtime.block_on(client.remove(request)).unwrap();
    }
}

fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

#[test]
fn metrics_and_logs_tell_what_happens_and_no_secrets() {
    if !available(&[Need::Root, Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let (user, word) = ("alice", "open-sesame-7");
    let registry = TestRegistry::builder().auth(Auth::bearer(user, word)).start_blocking();
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{word}"));
    fs::create_dir(home.path(".docker")).unwrap();
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{login}\"}}}}}}", registry.host());
    fs::write(home.path(".docker/config.json"), config).unwrap();
    let image = publish(&home, &registry);
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    home.configure(&format!(
        "debug = true\nmetrics_address = \"{address}\"\nfuse_metrics_emit_wait_duration_sec = 1\n\
         [fuse]\nlog_fuse_operations = true\n[background_fetch]\ndisable = true\n\
         [kubeconfig_keychain]\nenable_keychain = true\nkubeconfig_path = \"/nowhere\"\n"
    ));
    let mut daemon = home.start();
    let pull = Pull::connect(&home.path("s"));
    pull.prepare(&registry, &image);
    let view = pull.view(&image);
    assert_eq!(fs::read_to_string(view.join("hello")).unwrap(), "hello\n");
    assert_eq!(fs::read_dir(&view).unwrap().count(), 1);
    assert!(!rustix::termios::isatty(fs::File::open(view.join("hello")).unwrap()));
    let layer = image.layers()[0].digest.as_str();
    let text = metrics(&address);
    for kind in
        ["mount", "remote_registry_get", "init_metadata_store", "ztoc_unmarshal", "fuse_mount", "ztoc_fetch"]
    {
        let line = format!(
            "soci_fs_operation_duration_milliseconds_count{{layer=\"{layer}\",operation_type=\"{kind}\"}} 1"
        );
        assert!(text.contains(&line), "{line}\n{text}");
    }
    for part in [
        format!("_microseconds_count{{layer=\"{layer}\",operation_type=\"synchronous_read\"}} 1"),
        format!("_microseconds_count{{layer=\"{layer}\",operation_type=\"node_readdir\"}}"),
        format!("soci_fs_operation_count{{layer=\"{layer}\",operation_type=\"synchronous_read_count\"}} 1"),
        format!("{{layer=\"{layer}\",operation_type=\"synchronous_read_remote_registry_fetch_count\"}} 1"),
        format!("{{layer=\"{layer}\",operation_type=\"resolve_cache_miss\"}} 1"),
        format!("soci_fs_bytes_served{{layer=\"{layer}\",operation_type=\"synchronous_bytes_served\"}} 6"),
        "operation_type=\"soci_index_fetch\"} 1".to_owned(),
        format!("{{image=\"{}\",operation_type=\"file.Read\"}} 1", image.digest()),
        format!("soci_fs_layer_size_bytes{{digest=\"{layer}\",mountpoint=\"{}\"}}", view.display()),
        format!("soci_fs_layer_fetched_size_bytes{{digest=\"{layer}\","),
        "soci_snapshotter_snapshots{kind=\"view\"} 1".to_owned(),
        "soci_snapshotter_snapshots{kind=\"committed\"} 1".to_owned(),
        "soci_snapshotter_cache_bytes 4096".to_owned(),
        "soci_snapshotter_registry_requests_total ".to_owned(),
        "operation_type=\"fuse_failure_state\"} 0".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}\n{text}");
    }
    let logged = format!("fuse operation count for image {}: file.Read = 1", image.digest());
    eventually("operations are logged", || home.log().contains(&logged).then_some(()));
    // Another read, of what the registry has no more: the failure has a name.
    pull.remove("default/2/view");
    pull.remove(CHAIN);
    eventually("the series are gone", || {
        let text = metrics(&address);
        let gone =
            !text.contains(layer) && !text.contains(image.digest()) && !text.contains("soci_index_fetch");
        (gone && text.contains("soci_snapshotter_cache_bytes 0")).then_some(())
    });
    daemon.stop(Signal::TERM);
    check_log(&home, &[word, &login]);
}

/// What tools look for is there, and what nobody may see is not.
fn check_log(home: &Home, secrets: &[&str]) {
    let lines = home.lines();
    let log = home.log();
    assert_eq!(lines.len(), log.lines().count(), "{log}");
    let has = |level: &str, message: &str, field: &str| {
        let found = lines.iter().find(|line| line["msg"].as_str().is_some_and(|text| text.contains(message)));
        let line = found.unwrap_or_else(|| panic!("{message}\n{log}"));
        assert_eq!(line["level"], level, "{line}");
        assert!(field.is_empty() || !line[field].is_null(), "{line}");
    };
    has("info", "remote snapshot successfully prepared.", "remote-snapshot-prepared");
    has("info", "fetching SOCI artifacts using index descriptor", "digest");
    has("info", "soci-snapshotter-grpc successfully started", "");
    for message in [
        "checking for soci v2 index annotation",
        "using soci v1 index via referrers API",
        "checking mount point",
    ] {
        has("debug", message, "");
    }
    // Requests of the kernel, and none of the library's complaints.
    assert!(lines.iter().any(|line| line["msg"].as_str().is_some_and(|text| text.contains("READ"))), "{log}");
    let patterns = regex::Regex::new("(?i)password|secret|token|credential|bearer|oauth").unwrap();
    for line in log.lines() {
        assert!(secrets.iter().all(|secret| !line.contains(secret)), "{line}");
        let level = serde_json::from_str::<serde_json::Value>(line).unwrap()["level"].clone();
        if level != "debug" && level != "trace" {
            assert!(!patterns.is_match(line), "{line}");
        }
    }
}
