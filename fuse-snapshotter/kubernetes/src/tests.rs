//! The keychain and an API server that does what real ones do to their clients.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use registry::{Client, ClientConfig, Credential, CredentialProvider, Digest, Repository};
use serde_json::{Value, json};
use testdata::registry::{Auth, TestRegistry};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use super::{KubeconfigSettings, KubernetesKeychain};

const PASSWORD: &str = "s3cr3t-pa55word";
const NEW: &str = "kubernetes.io/dockerconfigjson";
const OLD: &str = "kubernetes.io/dockercfg";

/// An API server with secrets, and all that happened to them.
struct Cluster {
    state: Mutex<State>,
    version: watch::Sender<u64>,
    connections: Mutex<Vec<AbortHandle>>,
}

#[derive(Default)]
struct State {
    secrets: Vec<Value>,
    events: Vec<(u64, Value)>,
    /// What is older than this has been forgotten.
    oldest: u64,
    /// How that is said: by status, or within the stream.
    gone_by_status: bool,
    token: Option<String>,
    lists: usize,
    watches: usize,
    refused: usize,
}

struct Server {
    cluster: Arc<Cluster>,
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        self.cluster.disconnect();
    }
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cluster = Arc::new(Cluster {
            state: Mutex::default(),
            version: watch::Sender::new(100),
            connections: Mutex::default(),
        });
        let accepting = cluster.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let cluster = accepting.clone();
                let service = service_fn(move |request| answer(request, cluster.clone()));
                let connection = tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
                accepting.connections.lock().unwrap().push(connection.abort_handle());
            }
        });
        Self { cluster, url, task }
    }

    fn kubeconfig(&self, user: &Value) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        })
        .to_string()
    }
}

impl Cluster {
    /// Adds, changes or (no content) deletes a secret.
    fn set(&self, kind: &str, namespace: &str, name: &str, content: Option<&str>) {
        let key = if kind == NEW { ".dockerconfigjson" } else { ".dockercfg" };
        let version = *self.version.borrow() + 1;
        let mut state = self.state.lock().unwrap();
        let is_this = |secret: &Value| {
            secret["metadata"]["name"] == name && secret["metadata"]["namespace"] == namespace
        };
        let before = state.secrets.iter().position(is_this).map(|at| state.secrets.remove(at));
        let secret = |content: &str| {
            json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": {key: content},
                   "metadata": {"name": name, "namespace": namespace, "resourceVersion": version.to_string()}})
        };
        let event = match (content, before) {
            (Some(content), before) => {
                state.secrets.push(secret(content));
                let what = if before.is_some() { "MODIFIED" } else { "ADDED" };
                json!({"type": what, "object": secret(content)})
            }
            (None, _) => json!({"type": "DELETED", "object": secret("")}),
        };
        state.events.push((version, event));
        drop(state);
        self.version.send_replace(version);
    }

    fn login(&self, kind: &str, namespace: &str, name: &str, key: &str, user: &str) {
        let entry = json!({key: {"auth": STANDARD.encode(format!("{user}:{PASSWORD}"))}});
        let content = if kind == NEW { json!({ "auths": entry }) } else { entry };
        self.set(kind, namespace, name, Some(&STANDARD.encode(content.to_string())));
    }

    fn bookmark(&self) {
        let version = *self.version.borrow() + 50;
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"resourceVersion": version.to_string()}});
        self.state.lock().unwrap().events.push((version, json!({"type": "BOOKMARK", "object": object})));
        self.version.send_replace(version);
    }

    /// Forgets everything up to now.
    fn compact(&self) {
        self.state.lock().unwrap().oldest = *self.version.borrow();
    }

    fn disconnect(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }

    fn lists(&self) -> usize {
        self.state.lock().unwrap().lists
    }

    fn watches(&self) -> usize {
        self.state.lock().unwrap().watches
    }

    fn list(&self, kind: &str, limit: usize, from: usize) -> Value {
        let mut state = self.state.lock().unwrap();
        state.lists += usize::from(from == 0);
        let all: Vec<_> = state.secrets.iter().filter(|secret| secret["type"] == kind).cloned().collect();
        let next = from + limit;
        let token = if next < all.len() { next.to_string() } else { String::new() };
        json!({"apiVersion": "v1", "kind": "SecretList",
               "metadata": {"resourceVersion": self.version.borrow().to_string(), "continue": token},
               "items": all.into_iter().skip(from).take(limit).collect::<Vec<_>>()})
    }

    fn since(&self, version: u64, kind: &str) -> (u64, String) {
        let state = self.state.lock().unwrap();
        let fits = |event: &Value| event["type"] == "BOOKMARK" || event["object"]["type"] == kind;
        let new = state.events.iter().filter(|(at, event)| *at > version && fits(event));
        let lines = new.map(|(_, event)| format!("{event}\n")).collect();
        (*self.version.borrow(), lines)
    }
}

type Frames = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

fn whole(status: u16, body: &Value) -> Response<Frames> {
    let frame = Ok(Frame::data(Bytes::from(body.to_string())));
    let mut response = Response::new(StreamBody::new(stream::iter([frame]).boxed()));
    *response.status_mut() = status.try_into().unwrap();
    response
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
           "message": reason, "metadata": {}})
}

async fn answer(request: Request<Incoming>, cluster: Arc<Cluster>) -> Result<Response<Frames>, Infallible> {
    assert_eq!(request.uri().path(), "/api/v1/secrets");
    let url = url::Url::parse(&format!("http://x{}", request.uri())).unwrap();
    let query = |name: &str| {
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let kind = query("fieldSelector").strip_prefix("type=").unwrap().to_owned();
    {
        let mut state = cluster.state.lock().unwrap();
        let given = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
        if wanted.is_some() && wanted != given {
            state.refused += 1;
            return Ok(whole(401, &failure(401, "Unauthorized")));
        }
    }
    if !matches!(query("watch").as_str(), "true" | "1") {
        let from = query("continue").parse().unwrap_or(0);
        return Ok(whole(200, &cluster.list(&kind, query("limit").parse().unwrap_or(usize::MAX), from)));
    }
    assert_eq!(query("allowWatchBookmarks"), "true");
    let since: u64 = query("resourceVersion").parse().unwrap();
    {
        let mut state = cluster.state.lock().unwrap();
        if since < state.oldest {
            if state.gone_by_status {
                return Ok(whole(410, &failure(410, "Expired")));
            }
            return Ok(whole(200, &json!({"type": "ERROR", "object": failure(410, "Expired")})));
        }
        state.watches += 1;
    }
    let changes = cluster.version.subscribe();
    let frames = stream::unfold((since, changes, true), move |(since, mut changes, first)| {
        let (cluster, kind) = (cluster.clone(), kind.clone());
        async move {
            if !first {
                changes.changed().await.ok()?;
            }
            changes.borrow_and_update();
            let (now, lines) = cluster.since(since, &kind);
            Some((Ok(Frame::data(Bytes::from(lines))), (now, changes, false)))
        }
    });
    Ok(Response::new(StreamBody::new(frames.boxed())))
}

fn settings(path: &Path) -> KubeconfigSettings {
    KubeconfigSettings { path: Some(path.to_owned()), poll: Duration::from_millis(20) }
}

async fn user(keychain: &KubernetesKeychain, host: &str, repository: &str) -> String {
    match keychain.credential(host, repository).await.unwrap() {
        Some(Credential::Password { username, .. }) => username,
        None => String::new(),
        Some(other) => panic!("{other:?}"),
    }
}

/// Waits until the login for `q.io/app` is this user's.
async fn becomes(keychain: &KubernetesKeychain, expected: &str) {
    let mut last = String::new();
    for _ in 0..3000 {
        last = user(keychain, "q.io", "app").await;
        if last == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{last:?} is not {expected:?}");
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

/// A running server, and a keychain that follows it.
async fn followed() -> (Server, KubernetesKeychain, tempfile::TempDir) {
    let server = Server::start().await;
    server.cluster.login(NEW, "a", "first", "q.io", "one");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    fs::write(&path, server.kubeconfig(&json!({}))).unwrap();
    let keychain = KubernetesKeychain::start(settings(&path));
    // The first question waits for the first list.
    assert_eq!(user(&keychain, "q.io", "app").await, "one");
    let cluster = server.cluster.clone();
    wait_for("watches", || cluster.watches() == 2).await;
    (server, keychain, directory)
}

#[tokio::test]
async fn logins_follow_the_cluster() {
    let (server, keychain, _directory) = followed().await;
    let cluster = &server.cluster;
    // Of equals the first by namespace and name, whatever came first and whatever its type.
    cluster.login(OLD, "A", "x", "https://q.io/v1/", "two");
    becomes(&keychain, "two").await;
    cluster.login(NEW, "z", "y", "q.io/app", "longer");
    becomes(&keychain, "longer").await;
    assert_eq!(user(&keychain, "q.io", "other").await, "two");
    cluster.login(NEW, "z", "y", "*.q.io", "glob");
    becomes(&keychain, "two").await;
    assert_eq!(user(&keychain, "x.q.io", "app").await, "glob");
    cluster.set(OLD, "A", "x", None);
    becomes(&keychain, "one").await;
    cluster.set(NEW, "a", "first", None);
    becomes(&keychain, "").await;
}

#[tokio::test]
async fn all_pages_are_listed_and_bad_secrets_spoil_no_other() {
    let server = Server::start().await;
    let cluster = &server.cluster;
    for i in 0..120 {
        cluster.login(NEW, "many", &i.to_string(), &format!("h{i}.io"), "page");
    }
    let json = |text: &str| STANDARD.encode(text);
    let half = json!({"auths": {"bad.io": {"auth": "?"}, "good.io": {"username": "good", "password": "p"}}});
    cluster.set(NEW, "odd", "1", Some("no base64!"));
    cluster.set(NEW, "odd", "2", Some(&json("{\"auths\": [\"s3cr3t-pa55word\"]}")));
    cluster.set(OLD, "odd", "3", Some(&json("[]")));
    cluster.set(NEW, "odd", "4", Some(&json(&half.to_string())));
    cluster.set(OLD, "odd", "5", Some(""));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    fs::write(&path, server.kubeconfig(&json!({}))).unwrap();
    let keychain = KubernetesKeychain::start(settings(&path));
    for (host, expected) in [("h0.io", "page"), ("h119.io", "page"), ("good.io", "good"), ("bad.io", "")] {
        assert_eq!(user(&keychain, host, "app").await, expected, "{host}");
    }
    // A secret that goes bad takes its old login with it.
    cluster.login(NEW, "a", "a", "q.io", "one");
    becomes(&keychain, "one").await;
    cluster.set(NEW, "a", "a", Some("no base64!"));
    becomes(&keychain, "").await;
}

#[tokio::test]
async fn a_watch_goes_on_where_it_broke_off() {
    let (server, keychain, _directory) = followed().await;
    let cluster = &server.cluster;
    let lists = cluster.lists();
    cluster.disconnect();
    cluster.login(NEW, "a", "first", "q.io", "two");
    becomes(&keychain, "two").await;

    // A bookmark keeps the version fresh while nothing happens, so that nothing is listed again after it.
    cluster.bookmark();
    cluster.login(OLD, "A", "mark", "q.io", "seen");
    becomes(&keychain, "seen").await;
    cluster.compact();
    cluster.login(NEW, "A", "a", "q.io", "three");
    becomes(&keychain, "three").await;
    cluster.disconnect();
    cluster.login(NEW, "A", "a", "q.io", "four");
    becomes(&keychain, "four").await;
    assert_eq!(cluster.lists(), lists);
}

#[tokio::test]
async fn what_the_server_forgot_is_listed_anew() {
    let (server, keychain, _directory) = followed().await;
    let cluster = &server.cluster;
    for gone_by_status in [true, false] {
        let lists = cluster.lists();
        {
            // What happens between the end of the watch and the next one is known to nobody.
            let mut state = cluster.state.lock().unwrap();
            state.gone_by_status = gone_by_status;
            state.oldest = u64::MAX;
        }
        cluster.disconnect();
        cluster.set(NEW, "a", "first", None);
        cluster.login(OLD, "b", "second", "q.io", "two");
        cluster.compact();
        becomes(&keychain, "two").await;
        assert!(cluster.lists() > lists);
        cluster.set(OLD, "b", "second", None);
        cluster.login(NEW, "a", "first", "q.io", "one");
        becomes(&keychain, "one").await;
    }
}

#[tokio::test]
async fn the_kubeconfig_may_come_later_and_change() {
    let (first, second) = (Server::start().await, Server::start().await);
    first.cluster.login(NEW, "a", "a", "q.io", "one");
    second.cluster.login(NEW, "a", "a", "q.io", "two");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let keychain = KubernetesKeychain::start(settings(&path));
    assert_eq!(user(&keychain, "q.io", "app").await, "");
    fs::write(&path, "]: no YAML").unwrap();
    fs::write(&path, first.kubeconfig(&json!({}))).unwrap();
    becomes(&keychain, "one").await;
    // Gone for a while: what is known stays.
    fs::remove_file(&path).unwrap();
    first.cluster.login(NEW, "a", "a", "q.io", "still");
    becomes(&keychain, "still").await;
    fs::write(&path, second.kubeconfig(&json!({}))).unwrap();
    becomes(&keychain, "two").await;
}

#[tokio::test]
async fn tokens_come_from_exec_plugins_and_may_be_wrong_at_first() {
    let server = Server::start().await;
    server.cluster.login(NEW, "a", "a", "q.io", "one");
    server.cluster.state.lock().unwrap().token = Some("right".to_owned());
    let directory = tempfile::tempdir().unwrap();
    let plugin = directory.path().join("plugin");
    let script = |token: &str| {
        let answer = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                            "status": {"token": token}});
        fs::write(&plugin, format!("#!/bin/sh\ncat <<END\n{answer}\nEND\n")).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = directory.path().join("config");
    let user_entry = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": plugin,
                                     "interactiveMode": "Never"}});
    // No such program; then one whose token is refused; the kubeconfig stays as it is.
    fs::write(&path, server.kubeconfig(&user_entry)).unwrap();
    let keychain = KubernetesKeychain::start(settings(&path));
    assert_eq!(user(&keychain, "q.io", "app").await, "");
    script("wrong");
    let cluster = server.cluster.clone();
    wait_for("a refusal", || cluster.state.lock().unwrap().refused > 0).await;
    script("right");
    becomes(&keychain, "one").await;
}

#[tokio::test]
async fn the_registry_client_uses_them_and_no_log_shows_them() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let registry = TestRegistry::builder().auth(Auth::bearer("me", PASSWORD)).start().await;
    let digest: Digest = registry.put_blob("layer").parse().unwrap();
    let repository = Repository::new(&registry.host(), "team/app").unwrap();
    let (server, keychain, _directory) = followed().await;
    let keychain = Arc::new(keychain);
    let credentials = keychain.clone();
    let client = Client::new(ClientConfig { credentials, ..ClientConfig::default() }).unwrap();
    assert!(client.blob_exists(&repository, &digest).await.is_err());
    server.cluster.login(NEW, "a", "mine", &registry.host(), "me");
    server.cluster.login(NEW, "a", "first", "q.io", "two");
    server.cluster.set(NEW, "a", "bad", Some(&STANDARD.encode(format!("{{\"auths\": \"{PASSWORD}\"}}"))));
    becomes(&keychain, "two").await;
    let before = client.stats().token_requests;
    // The client that was turned away asks again.
    assert!(client.blob_exists(&repository, &digest).await.unwrap());
    // Another secret is of no concern; its own is gone, and so is the token that was made with it.
    server.cluster.login(NEW, "a", "first", "q.io", "three");
    becomes(&keychain, "three").await;
    assert!(client.blob_exists(&repository, &digest).await.unwrap());
    assert_eq!(client.stats().token_requests, before + 1);
    server.cluster.set(NEW, "a", "mine", None);
    wait_for("the secret to go", || keychain.shared.logins().get(&registry.host(), "team/app").is_none())
        .await;
    assert!(client.blob_exists(&repository, &digest).await.is_err());

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("image pull login"), "{text}");
    let encoded = STANDARD.encode(format!("me:{PASSWORD}"));
    assert!(!text.contains(PASSWORD) && !text.contains(&encoded) && !text.contains("eyJhdXRocy"), "{text}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
