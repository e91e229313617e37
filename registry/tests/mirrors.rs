//! hosts.toml: mirrors, certificates, and what happens to mistakes.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{SECRET, assert_clean, config, noise, put, read};
use registry::{
    Client, ClientConfig, Descriptor, Digest, Error, HostConfig, Repository, ServerConfig, media_types,
};
use testdata::registry::{Action, Auth, Fault, Outage, TestRegistry};

/// The registry name that the mirrors stand for; nothing answers there.
const NAME: &str = "registry.invalid";

fn hosts(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir.join(name)).unwrap();
    std::fs::write(dir.join(name).join("hosts.toml"), text).unwrap();
}

fn client_with(dir: &Path) -> Client {
    Client::new(ClientConfig { hosts_dir: Some(dir.to_owned()), ..config() }).unwrap()
}

fn repo() -> Repository {
    Repository::new(NAME, "a/b").unwrap()
}

#[tokio::test]
async fn every_pull_asks_mirrors_in_order_then_the_server() {
    let (first, second, origin) = (start().await, start().await, start().await);
    let dir = tempfile::tempdir().unwrap();
    hosts(
        dir.path(),
        NAME,
        &format!(
            "server = \"{}\"\n[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"{}\"]\n[host.\"{}\".header]\nx-test = \"yes\"\n",
            origin.url(),
            first.url(),
            second.host(),
            second.host()
        ),
    );
    let client = client_with(dir.path());
    let data = noise(1000);
    let everywhere = put(&first, &data);
    let at_second = put(&second, b"second");
    let at_origin = put(&origin, b"origin");
    put(&second, &data);

    read(&client.blob_reader(&repo(), everywhere, 1000), 0..10).await.unwrap();
    assert_eq!((first.requests().len(), second.requests().len(), origin.requests().len()), (1, 0, 0));
    assert_eq!(first.requests()[0].query.as_deref(), Some("ns=registry.invalid"));

    read(&client.blob_reader(&repo(), at_second, 6), 0..6).await.unwrap();
    assert_eq!((first.requests().len(), second.requests().len(), origin.requests().len()), (2, 1, 0));
    assert_eq!(second.requests()[0].header("x-test"), Some("yes"));
    assert_eq!(first.requests()[0].header("x-test"), None);

    let found = client.blob_bytes(&repo(), &Descriptor::new("x", at_origin.clone(), 6), 10).await.unwrap();
    assert_eq!(&found[..], b"origin");
    assert!(client.blob_exists(&repo(), &at_origin).await.unwrap());

    origin.put_manifest("a/b", "t", media_types::OCI_INDEX, r#"{"manifests":[]}"#);
    client.manifest_in(&repo(), "t").await.unwrap();
    let seen = |registry: &TestRegistry| registry.requests().iter().any(|r| r.path.ends_with("/manifests/t"));
    assert!(seen(&first) && seen(&second) && seen(&origin));

    let subject = Digest::of(b"s");
    client.referrers(&repo(), &subject, None).await.unwrap();
    assert!(first.requests().iter().any(|r| r.path.contains("/referrers/")));
    // Uploads go to the server only.
    origin.clear_requests();
    client
        .push_manifest(&repo(), "new", media_types::OCI_INDEX, r#"{"schemaVersion":2,"manifests":[]}"#.into())
        .await
        .unwrap();
    assert_eq!(origin.requests().len(), 1);
    assert!(first.requests().iter().chain(&second.requests()).all(|r| r.method != "PUT"));
}

async fn start() -> TestRegistry {
    TestRegistry::builder().start().await
}

#[tokio::test]
async fn tags_only_where_resolve_is_allowed() {
    let (mirror, origin) = (start().await, start().await);
    let dir = tempfile::tempdir().unwrap();
    let text =
        format!("server = \"{}\"\n[host.\"{}\"]\ncapabilities = [\"pull\"]\n", origin.url(), mirror.url());
    hosts(dir.path(), "_default", &text);
    let body = r#"{"manifests":[]}"#;
    let digest: Digest = origin.put_manifest("a/b", "t", media_types::OCI_INDEX, body).parse().unwrap();
    mirror.put_manifest("a/b", "t", media_types::OCI_INDEX, body);
    let client = client_with(dir.path());
    client.manifest_in(&repo(), "t").await.unwrap();
    assert_eq!((mirror.requests().len(), origin.requests().len()), (0, 1));
    client.manifest_in(&repo(), &digest).await.unwrap();
    assert_eq!((mirror.requests().len(), origin.requests().len()), (1, 1));
}

#[tokio::test]
async fn a_dead_mirror_costs_little_and_is_left_alone() {
    let (mirror, origin) = (start().await, start().await);
    let dir = tempfile::tempdir().unwrap();
    hosts(dir.path(), NAME, &format!("server = \"{}\"\n[host.\"{}\"]\n", origin.url(), mirror.url()));
    mirror.set_outage(Outage::Refuse);
    let client = client_with(dir.path());
    let digests: Vec<_> = (0..5_u8).map(|i| put(&origin, &[i; 10])).collect();
    let begin = Instant::now();
    for digest in digests {
        read(&client.blob_reader(&repo(), digest, 10), 0..10).await.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(client.stats().requests, 2 + 5, "two tries at the mirror, not ten");
}

#[tokio::test]
async fn damaged_mirrors_do_not_stand_in_the_way() {
    let (mirror, origin) = (start().await, start().await);
    let dir = tempfile::tempdir().unwrap();
    hosts(dir.path(), NAME, &format!("server = \"{}\"\n[host.\"{}\"]\n", origin.url(), mirror.url()));
    let client = client_with(dir.path());
    let data = noise(1000);
    let digest = put(&mirror, &data);
    put(&origin, &data);
    for action in [Action::CorruptByte(5), Action::WrongContentRange, Action::Status(403, vec![], "".into())]
    {
        mirror.inject(Fault::always(action));
    }
    let bytes = client.blob_bytes(&repo(), &Descriptor::new("x", digest.clone(), 1000), 1000).await.unwrap();
    assert_eq!(bytes, data);
    assert_eq!(read(&client.blob_reader(&repo(), digest, 1000), 5..50).await.unwrap(), data[5..50]);
}

#[tokio::test]
async fn credentials_of_the_registry_do_not_go_to_mirrors() {
    let mirror = TestRegistry::builder().auth(Auth::basic("me", SECRET)).start().await;
    let origin = TestRegistry::builder().auth(Auth::basic("me", SECRET)).start().await;
    let credential = registry::Credential::password("me", SECRET);
    let credentials = std::sync::Arc::new(registry::StaticCredentials::for_host(origin.host(), credential));
    let mut config = ClientConfig { credentials, ..config() };
    let found =
        HostConfig { mirrors: vec![ServerConfig::new(mirror.url())], server: ServerConfig::default() };
    config.hosts.insert(origin.host(), found);
    let client = Client::new(config).unwrap();
    let repository = Repository::new(&origin.host(), "a/b").unwrap();
    let digest = put(&origin, b"x");
    put(&mirror, b"x");
    assert!(client.blob_exists(&repository, &digest).await.unwrap());
    assert!(!mirror.requests().is_empty() && mirror.requests().iter().all(|r| !r.had_authorization));
}

#[tokio::test]
async fn paths_of_mirrors() {
    let mirror = start().await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "server = \"{0}\"\n[host.\"{0}/prefix\"]\n[host.\"{0}/other/v2\"]\n[host.\"{0}/exact\"]\noverride_path = true\n",
        mirror.url()
    );
    hosts(dir.path(), NAME, &text);
    let client = client_with(dir.path());
    assert!(!client.blob_exists(&repo(), &Digest::of(b"x")).await.unwrap());
    let paths: Vec<_> =
        mirror.requests().iter().map(|r| r.path.split("/a/b").next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/prefix/v2", "/other/v2", "/exact", "/v2"]);
}

#[test]
fn mistakes_show_at_start_up() {
    let refused = |name: &str, text: &str| {
        let dir = tempfile::tempdir().unwrap();
        hosts(dir.path(), "good.example", "server = \"https://good.example\"");
        hosts(dir.path(), name, text);
        let error =
            Client::new(ClientConfig { hosts_dir: Some(dir.path().to_owned()), ..config() }).unwrap_err();
        assert!(matches!(error, Error::Config { .. }));
        let text = error.to_string();
        assert!(text.contains(&format!("{name}/hosts.toml")), "{text}");
        text
    };
    assert!(refused("x.example", "server = \n").contains("line 1"));
    assert!(refused("x.example:5000", "\n[host.\"https://\"]").contains("line 2"));
    assert!(refused("_default", "capabilities = [\"fly\"]").contains("`fly`"));
    assert!(refused("x.example", "ca = \"missing.crt\"").contains("missing.crt"));
    assert!(refused("x.example", "ca = \"hosts.toml\"").contains("PEM"));
    let text = refused("x.example", &format!("[host.\"https://me:{SECRET}@mirror.example\"]"));
    assert!(!text.contains(SECRET) && text.contains("mirror.example"), "{text}");

    let missing = ClientConfig { hosts_dir: Some("/nowhere/certs.d:/neither".into()), ..config() };
    Client::new(missing).unwrap();
}

#[tokio::test]
async fn the_port_in_directory_names_and_docker_hub() {
    let mirror = start().await;
    let dir = tempfile::tempdir().unwrap();
    for (name, host) in [
        ("docker.io", "docker.io"),
        ("x.invalid:5000", "x.invalid:5000"),
        ("y.invalid_5000_", "y.invalid:5000"),
    ] {
        hosts(dir.path(), name, &format!("server = \"{}\"\n", mirror.url()));
        let client = client_with(dir.path());
        mirror.clear_requests();
        client.blob_exists(&Repository::new(host, "a/b").unwrap(), &Digest::of(b"x")).await.unwrap();
        assert_eq!(mirror.requests().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn errors_name_what_was_done_and_where() {
    let registry = start().await;
    let mut config = config();
    config.retry.max_retries = 0;
    let client = Client::new(config).unwrap();
    let repository = Repository::new(&registry.host(), "a/b").unwrap();
    let error = client.manifest_in(&repository, "t").await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("get manifest `t`: {}/a/b: not found", registry.host())), "{error}");
    registry.set_outage(Outage::Refuse);
    let error = client.manifest_in(&repository, "t").await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("connection re"), "refused or reset: {error}");
    assert_clean(&error, &[]);
}
