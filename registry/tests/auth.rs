//! Authentication: tokens, their renewal, and where credentials go.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{SECRET, assert_clean, client, client_as, config, noise, put, read, repository};
use futures::StreamExt;
use registry::{
    Client, ClientConfig, Credential, CredentialProvider, Digest, DockerConfig, Error, Repository,
    StaticCredentials,
};
use testdata::registry::{Action, Auth, Fault, Listener, Outage, Redirect, TestRegistry, TokenIn};

fn bearer() -> Auth {
    Auth::bearer("me", SECRET)
}

#[tokio::test]
async fn one_token_serves_all_reads_and_goes_ahead_of_them() {
    for auth in [Auth::anonymous_bearer(), bearer()] {
        let registry = TestRegistry::builder().auth(auth).start().await;
        let data = noise(1000);
        let client = client_as("me", SECRET);
        let blob = client.blob_reader(&repository(&registry), put(&registry, &data), 1000);
        for i in 0..5 {
            assert_eq!(read(&blob, i..i + 10).await.unwrap(), data[i as usize..][..10]);
        }
        assert_eq!(registry.token_requests(), 1);
        let refused = registry.requests().iter().filter(|r| r.status == 401).count();
        assert_eq!(refused, 1, "only the very first request goes out bare");
        // Another repository needs another token, but no challenge.
        let other = registry::Repository::new(&registry.host(), "c/d").unwrap();
        assert!(client.blob_exists(&other, &registry::Digest::of(&data)).await.unwrap());
        assert_eq!(registry.token_requests(), 2);
        assert_eq!(registry.requests().iter().filter(|r| r.status == 401).count(), 1);
    }
}

#[tokio::test]
async fn renewal_is_single_flight_on_401_and_403() {
    for status in [401, 403] {
        let registry = TestRegistry::builder()
            .auth(bearer())
            .expired_token_status(status)
            .latency(Duration::from_millis(10))
            .start()
            .await;
        let data = noise(1000);
        let blob = client_as("me", SECRET).blob_reader(&repository(&registry), put(&registry, &data), 1000);
        read(&blob, 0..1).await.unwrap();
        assert_eq!(registry.token_requests(), 1);
        for _ in 0..3 {
            registry.expire_tokens();
            registry.clear_requests();
            let reads = (0..16_u64).map(|i| read(&blob, i..i + 10));
            for (i, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
                assert_eq!(bytes.unwrap(), data[i..i + 10]);
            }
            assert_eq!(registry.token_requests(), 1, "status {status}");
        }
    }
}

#[tokio::test]
async fn first_token_is_single_flight_too() {
    let registry = TestRegistry::builder().auth(bearer()).latency(Duration::from_millis(10)).start().await;
    let client = client_as("me", SECRET);
    let digests: Vec<_> = (0..16_u8).map(|i| put(&registry, &[i; 100])).collect();
    let repository = repository(&registry);
    let looks = digests.iter().map(|digest| client.blob_exists(&repository, digest));
    for found in futures::future::join_all(looks).await {
        assert!(found.unwrap());
    }
    assert_eq!(registry.token_requests(), 1);
    assert_eq!(client.stats().token_requests, 1);
}

#[tokio::test]
async fn tokens_are_renewed_before_they_expire() {
    let expires_in = Duration::from_secs(1);
    let auth = Auth::Bearer { user: None, expires_in, token_in: TokenIn::AccessToken };
    let registry = TestRegistry::builder().auth(auth).start().await;
    let blob = client().blob_reader(&repository(&registry), put(&registry, &noise(1000)), 1000);
    read(&blob, 0..1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(950)).await;
    registry.clear_requests();
    read(&blob, 0..1).await.unwrap();
    assert_eq!(registry.token_requests(), 1);
    assert!(registry.requests().iter().all(|r| r.status != 401));
}

#[tokio::test]
async fn basic_authentication() {
    let registry = TestRegistry::builder().auth(Auth::basic("me", SECRET)).start().await;
    let digest = put(&registry, &noise(1000));
    let blob = client_as("me", SECRET).blob_reader(&repository(&registry), digest.clone(), 1000);
    read(&blob, 0..1).await.unwrap();
    read(&blob, 0..1).await.unwrap();
    assert_eq!(registry.requests().len(), 3);
    for client in [client_as("me", "wrong"), client()] {
        let error = client.blob_exists(&repository(&registry), &digest).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains(&format!("docker login {}", registry.host())), "{error}");
        assert_clean(&error, &["wrong"]);
    }
}

#[tokio::test]
async fn wrong_passwords_are_reported_without_them() {
    let registry = TestRegistry::builder().auth(bearer()).start().await;
    let digest = put(&registry, b"x");
    let error = client_as("me", "hunter2").blob_exists(&repository(&registry), &digest).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_clean(&error, &["hunter2", "bWU6aHVudGVyMg"]);
    // A token server that quotes what it was given.
    registry.inject(Fault::always(Action::Status(403, vec![], "bad password hunter2".into())).path("/token"));
    let error = client_as("me", "hunter2").blob_exists(&repository(&registry), &digest).await.unwrap_err();
    assert_clean(&error, &["hunter2"]);
}

#[tokio::test]
async fn identity_and_registry_tokens() {
    let registry = TestRegistry::builder().auth(bearer()).start().await;
    let digest = put(&registry, b"x");
    let with = |credential| {
        let credentials = Arc::new(StaticCredentials::for_host(registry.host(), credential));
        Client::new(ClientConfig { credentials, ..config() }).unwrap()
    };
    let client = with(Credential::IdentityToken(SECRET.into()));
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap());
    let posted = registry.requests().iter().any(|r| r.method == "POST" && r.path == "/token");
    assert!(posted);
    // token-1 was issued above; it is handed over ready-made.
    let client = with(Credential::RegistryToken("token-1".into()));
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap());
    assert_eq!(client.stats().token_requests, 0);
}

#[tokio::test]
async fn token_servers_that_know_only_get() {
    let registry = TestRegistry::builder().auth(bearer()).start().await;
    let digest = put(&registry, b"x");
    for status in [404, 405, 400, 401] {
        registry.inject(Fault::once(Action::Status(status, vec![], "".into())).path("/token").method("POST"));
        let client = client_as("me", SECRET);
        assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap(), "{status}");
    }
}

#[tokio::test]
async fn credentials_stay_at_the_registry() {
    let registry = TestRegistry::builder().auth(bearer()).redirect_blobs(Redirect::default()).start().await;
    let data = noise(1000);
    let blob = client_as("me", SECRET).blob_reader(&repository(&registry), put(&registry, &data), 1000);
    for _ in 0..3 {
        read(&blob, 0..10).await.unwrap();
    }
    registry.expire_redirects();
    read(&blob, 0..10).await.unwrap();
    let requests = registry.requests();
    let at_storage: Vec<_> = requests.iter().filter(|r| r.listener == Listener::Redirect).collect();
    assert!(at_storage.len() >= 4);
    assert!(at_storage.iter().all(|r| !r.had_authorization));
}

#[tokio::test]
async fn denied_is_told_apart_and_not_repeated_for_ever() {
    let registry = TestRegistry::builder().auth(bearer()).start().await;
    let digest = put(&registry, b"x");
    let client = client_as("me", SECRET);
    client.blob_exists(&repository(&registry), &digest).await.unwrap();
    registry.clear_requests();
    let body = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    registry.inject(Fault::always(Action::Status(403, vec![], body.into())).path("/manifests/"));
    let error = client.manifest_in(&repository(&registry), "latest").await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(error.to_string().contains("requested access to the resource is denied"), "{error}");
    assert!(registry.requests().len() <= 3);
}

fn helper(dir: &Path, name: &str, script: &str) {
    let path = dir.join(format!("docker-credential-{name}"));
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Helpers are found through PATH. The variable is the process's own, so all of it is in one test: it runs this
/// test binary again with PATH set.
#[test]
fn credential_helpers() {
    if std::env::var_os("REGISTRY_TEST_HELPERS").is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(helpers_in_path());
    }
    let dir = tempfile::tempdir().unwrap();
    helper(
        dir.path(),
        "good",
        &format!(
            "read host; printf '{{\"ServerURL\":\"%s\",\"Username\":\"me-%s\",\"Secret\":\"{SECRET}\"}}' $host $host"
        ),
    );
    helper(dir.path(), "token", &format!("echo '{{\"Username\":\"<token>\",\"Secret\":\"{SECRET}\"}}'"));
    helper(dir.path(), "none", "echo 'credentials not found in native keychain'; exit 1");
    helper(dir.path(), "bad", "echo 'keychain is locked' >&2; exit 1");
    helper(dir.path(), "slow", "sleep 60");
    let runs = dir.path().join("where");
    let counted = "cat >/dev/null; echo run >> \"$(cat \"$REGISTRY_TEST_HELPERS\")\"";
    helper(dir.path(), "counted", &format!("{counted}; echo no active account >&2; exit 1"));
    helper(dir.path(), "rubbish", &format!("echo {SECRET}"));
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "credential_helpers", "--nocapture"])
        .env("REGISTRY_TEST_HELPERS", &runs)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}

async fn helpers_in_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let names = ["good", "token", "none", "bad", "slow", "rubbish", "missing", "../x"];
    let helpers: serde_json::Map<String, serde_json::Value> =
        names.iter().enumerate().map(|(i, name)| (format!("h{i}"), (*name).into())).collect();
    std::fs::write(
        &file,
        serde_json::json!({ "credHelpers": helpers, "auths": {"h2": {"identitytoken": "old"}} }).to_string(),
    )
    .unwrap();
    let config = DockerConfig::from_file(&file).with_helper_timeout(Duration::from_secs(2));
    let ask = |i: usize| {
        let config = config.clone();
        async move { config.credential(&format!("h{i}"), "a/b").await }
    };
    assert_eq!(ask(0).await.unwrap(), Some(Credential::password("me-h0", SECRET)));
    assert_eq!(ask(1).await.unwrap(), Some(Credential::IdentityToken(SECRET.into())));
    assert_eq!(
        ask(2).await.unwrap(),
        Some(Credential::IdentityToken("old".into())),
        "the store has none, the file has"
    );
    for (i, words) in [
        (3, "keychain is locked"),
        (4, "no answer"),
        (5, "JSON"),
        (6, "not installed"),
        (7, "name of a helper"),
    ] {
        assert_eq!(ask(i).await.unwrap(), None, "the image may be public");
        let trouble = config.trouble(&format!("h{i}"), "a/b").unwrap();
        assert!(trouble.contains(words) && trouble.contains(names[i]), "{trouble}");
        assert!(!trouble.contains(SECRET), "{trouble}");
    }
    assert_eq!(config.credential("elsewhere", "a/b").await.unwrap(), None);
    assert_eq!(config.trouble("elsewhere", "a/b"), None);
    a_helper_that_fails_is_named_when_the_registry_refuses(dir.path()).await;
}

async fn a_helper_that_fails_is_named_when_the_registry_refuses(dir: &Path) {
    let private = TestRegistry::builder().auth(bearer()).start().await;
    let basic = TestRegistry::builder().auth(Auth::basic("me", SECRET)).start().await;
    let public = TestRegistry::builder().auth(Auth::anonymous_bearer()).start().await;
    // The helper's name, and how often it ran: it is left alone after it has failed.
    let (file, runs) = (dir.join("config.json"), dir.join("runs"));
    let store = serde_json::json!({ "credsStore": "counted" }).to_string();
    std::fs::write(&file, store).unwrap();
    std::fs::write(std::env::var("REGISTRY_TEST_HELPERS").unwrap(), runs.display().to_string()).unwrap();
    let credentials = Arc::new(DockerConfig::from_file(&file));
    let client = Client::new(ClientConfig { credentials, ..config() }).unwrap();
    for registry in [&private, &basic] {
        let digest = put(registry, b"x");
        for _ in 0..3 {
            let error = client.blob_exists(&repository(registry), &digest).await.unwrap_err();
            let text = error.to_string();
            assert!(error.is_auth(), "{error}");
            assert!(text.contains("`docker-credential-counted` failed: no active account"), "{error}");
            assert_eq!(text.matches("docker-credential-counted").count(), 1, "{error}");
        }
    }
    let digest = put(&public, b"x");
    assert!(client.blob_exists(&repository(&public), &digest).await.unwrap());
    assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), 3, "once for each registry");
}

#[tokio::test]
async fn docker_configuration_is_read_again_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let registry = TestRegistry::builder().auth(Auth::basic("me", "pw")).start().await;
    let digest = put(&registry, b"x");
    let credentials = Arc::new(DockerConfig::from_file(&file));
    let client = Client::new(ClientConfig { credentials, ..config() }).unwrap();
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap_err().is_auth());
    // me:pw
    std::fs::write(
        &file,
        format!(r#"{{"auths":{{"http://{}/v2/":{{"auth":"bWU6cHc="}}}}}}"#, registry.host()),
    )
    .unwrap();
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap());
    std::fs::write(&file, format!("{{\"auths\": {SECRET}")).unwrap();
    let error = DockerConfig::from_file(&file).credential(&registry.host(), "a/b").await.unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
    assert_clean(&error, &[]);
}

fn at(registry: &TestRegistry, name: &str) -> Repository {
    Repository::new(&registry.host(), name).unwrap()
}

/// As Harbor: a token that has ended is answered by a challenge for Basic authentication.
fn harbor() -> testdata::registry::Builder {
    TestRegistry::builder().auth(bearer()).basic_for_bad_tokens(true).public("pub/")
}

#[tokio::test]
async fn a_challenge_for_basic_leads_back_to_a_token() {
    for client in [client(), client_as("me", SECRET)] {
        let registry = harbor().start().await;
        let data = noise(1000);
        let blob = client.blob_reader(&at(&registry, "pub/app"), put(&registry, &data), 1000);
        for _ in 0..3 {
            registry.clear_requests();
            let reads = (0..16_u64).map(|i| read(&blob, i..i + 10));
            for (i, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
                assert_eq!(bytes.unwrap(), data[i..i + 10]);
            }
            assert!(registry.token_requests() <= 2, "a POST and a GET at most");
            registry.expire_tokens();
        }
        // Uploads have a renewal of their own: here between POST and PUT.
        if client.blob_exists(&at(&registry, "priv/app"), &Digest::of(&data)).await.is_ok() {
            let new = noise(2000);
            let fault = Action::Status(401, vec![("WWW-Authenticate".into(), "Basic".into())], "".into());
            registry.inject(Fault::once(fault).method("PUT"));
            let source = || async { Ok(futures::stream::iter([Ok(noise(2000).into())]).boxed()) };
            let pushed = client.push_blob(&at(&registry, "priv/app"), &Digest::of(&new), 2000, source).await;
            assert!(pushed.unwrap());
        }
    }
}

#[tokio::test]
async fn a_private_repository_does_not_lock_its_host_out() {
    let registry = harbor().start().await;
    let digest = put(&registry, b"x");
    let client = client();
    let look = |name: &'static str| {
        let (client, digest, repository) = (client.clone(), digest.clone(), at(&registry, name));
        async move { client.blob_exists(&repository, &digest).await }
    };
    assert!(look("pub/one").await.unwrap());
    for _ in 0..2 {
        registry.clear_requests();
        assert!(look("priv/app").await.unwrap_err().is_auth());
        assert!(registry.requests().len() <= 8, "{}", registry.requests().len());
        assert!(look("pub/one").await.unwrap());
        assert!(look("pub/two").await.unwrap());
        registry.expire_tokens();
    }
}

#[tokio::test]
async fn each_repository_may_have_a_token_server_of_its_own() {
    let (registry, servers) = (TestRegistry::builder().start().await, [bearer(), Auth::anonymous_bearer()]);
    let mut realms = Vec::new();
    for auth in servers {
        realms.push(TestRegistry::builder().auth(auth).start().await);
    }
    let digest = put(&registry, b"x");
    let client = client_as("me", SECRET);
    for _ in 0..2 {
        for (name, realm) in ["one/app", "two/app"].into_iter().zip(&realms) {
            let challenge = format!("Bearer realm=\"{}/token\"", realm.url());
            let refuse = Action::Status(401, vec![("WWW-Authenticate".into(), challenge)], "".into());
            registry.inject(Fault::once(refuse).path(name));
            assert!(client.blob_exists(&at(&registry, name), &digest).await.unwrap(), "{name}");
        }
    }
    // One that is gone holds up neither the other nor what needs none.
    realms[0].set_outage(Outage::Refuse);
    assert!(client.blob_exists(&at(&registry, "two/app"), &digest).await.unwrap());
    assert!(client.blob_exists(&at(&registry, "three/app"), &digest).await.unwrap());
}

#[tokio::test]
async fn a_login_that_is_refused_is_left_out_where_none_is_needed() {
    let registry = TestRegistry::builder().start().await;
    let digest = put(&registry, b"x");
    let refuse = || Action::Status(401, vec![("WWW-Authenticate".into(), "Basic".into())], "".into());
    let client = client_as("me", "wrong");
    let look = || async {
        registry.clear_requests();
        assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap());
        registry.requests().iter().map(|request| request.had_authorization).collect::<Vec<_>>()
    };
    registry.inject(Fault::once(refuse()));
    assert_eq!(look().await, [false, true]);
    registry.inject(Fault::once(refuse()));
    assert_eq!(look().await, [true, false], "once more without it");
    assert_eq!(look().await, [false], "and that is remembered");
}

/// A source of logins that can be changed, and counts how often it is asked.
#[derive(Debug)]
struct Changing {
    login: Mutex<Option<Credential>>,
    revision: AtomicU64,
    asked: AtomicU64,
}

impl Changing {
    fn set(&self, login: Option<Credential>) {
        *self.login.lock().unwrap() = login;
        self.touch();
    }

    fn touch(&self) {
        self.revision.fetch_add(1, Relaxed);
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Changing {
    async fn credential(&self, _host: &str, _repository: &str) -> registry::Result<Option<Credential>> {
        self.asked.fetch_add(1, Relaxed);
        Ok(self.login.lock().unwrap().clone())
    }

    fn revision(&self, _host: &str, _repository: &str) -> u64 {
        self.revision.load(Relaxed)
    }
}

#[tokio::test]
async fn a_login_that_was_removed_is_used_no_more() {
    for auth in [bearer(), Auth::basic("me", SECRET)] {
        let registry = TestRegistry::builder().auth(auth).start().await;
        let data = noise(1000);
        let login = Credential::password("me", SECRET);
        let source = Arc::new(Changing {
            login: Mutex::new(Some(login.clone())),
            revision: AtomicU64::new(1),
            asked: AtomicU64::new(0),
        });
        let client = Client::new(ClientConfig { credentials: source.clone(), ..config() }).unwrap();
        let blob = client.blob_reader(&repository(&registry), put(&registry, &data), 1000);
        for _ in 0..5 {
            read(&blob, 0..10).await.unwrap();
        }
        assert_eq!(source.asked.load(Relaxed), 1, "not with every request");
        // Something else has changed.
        source.touch();
        read(&blob, 0..10).await.unwrap();
        read(&blob, 0..10).await.unwrap();
        assert_eq!(source.asked.load(Relaxed), 2);
        registry.clear_requests();
        source.set(None);
        for _ in 0..2 {
            assert!(read(&blob, 0..10).await.unwrap_err().is_auth());
        }
        let requests = registry.requests();
        assert!(requests.iter().all(|r| !r.had_authorization && r.method != "POST"), "{requests:?}");
        source.set(Some(login));
        assert_eq!(read(&blob, 0..10).await.unwrap(), data[..10]);
    }
}

#[tokio::test]
async fn an_entry_removed_from_the_docker_configuration_is_used_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let registry = TestRegistry::builder().auth(Auth::bearer("me", "pw")).start().await;
    let digest = put(&registry, b"x");
    let client =
        Client::new(ClientConfig { credentials: Arc::new(DockerConfig::from_file(&file)), ..config() });
    let client = client.unwrap();
    let write = |auths: String| std::fs::write(&file, format!("{{\"auths\":{{{auths}}}}}")).unwrap();
    // me:pw
    let own = format!(r#""{}":{{"auth":"bWU6cHc="}}"#, registry.host());
    write(own.clone());
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap());
    // Another login is of no concern.
    write(format!(r#"{own},"other.io":{{"auth":"bWU6cHc="}}"#));
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap());
    assert_eq!(client.stats().token_requests, 1);
    write(String::new());
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap_err().is_auth());
    write(own);
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap());
    std::fs::remove_file(&file).unwrap();
    assert!(client.blob_exists(&repository(&registry), &digest).await.unwrap_err().is_auth());
}
