//! Credentials as `docker login`, `podman login` and `skopeo login` leave them.
//!
//! Docker: `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`. Podman and skopeo: `$REGISTRY_AUTH_FILE`, or
//! `$XDG_RUNTIME_DIR/containers/auth.json`. Both have the same form:
//!
//! ```json
//! { "auths": { "ghcr.io": { "auth": "<base64 of user:password>" },
//!              "https://index.docker.io/v1/": { "identitytoken": "…" },
//!              "quay.io/team": { "auth": "…" } },
//!   "credHelpers": { "123.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login" },
//!   "credsStore": "desktop" }
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::failures::HelperFailures;
use super::helper;
use super::provider::{Credential, CredentialProvider, same_registry};
use crate::error::{Error, Result};

/// The key of Docker Hub, kept since the days of its first registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// A configuration larger than this is not one.
const MAX_FILE: u64 = 4 << 20;
/// Helpers may ask a cloud service, or a person; but a pull must not hang on them.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// Credentials from Docker's and Podman's configuration files. They are read again for every question, so a
/// `docker login` takes effect at once.
///
/// A credential helper that is missing or fails is no error: other sources may have a login, and much can be read
/// without one. It is logged once, left alone for a while, and named by [`CredentialProvider::trouble`].
#[derive(Debug, Clone)]
pub struct DockerConfig {
    files: Vec<PathBuf>,
    helper_timeout: Duration,
    /// Shared by clones.
    failures: Arc<HelperFailures>,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self::from_env()
    }
}

impl DockerConfig {
    /// The files that the environment names, Docker's before Podman's.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// The files that another process' environment names; `variable` gives its variables.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let var = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let docker = var("DOCKER_CONFIG").or_else(|| var("HOME").map(|home| home.join(".docker")));
        let podman = var("REGISTRY_AUTH_FILE")
            .or_else(|| var("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
        let files = docker.map(|dir| dir.join("config.json")).into_iter().chain(podman).collect();
        Self { files, helper_timeout: HELPER_TIMEOUT, failures: Arc::default() }
    }

    /// Just this file.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { files: vec![path.into()], helper_timeout: HELPER_TIMEOUT, failures: Arc::default() }
    }

    /// How long a credential helper may take; 30 s if not set.
    #[must_use]
    pub fn with_helper_timeout(mut self, timeout: Duration) -> Self {
        self.helper_timeout = timeout;
        self
    }
}

#[async_trait]
impl CredentialProvider for DockerConfig {
    async fn credential(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        for path in &self.files {
            let Some(file) = read(path, host).await? else { continue };
            if let Some((name, server)) = file.helper(host, repository)
                && let Some(found) = self.ask_helper(&name, &server, host).await
            {
                return Ok(Some(found));
            }
            // A store that has nothing for this host does not hide what `docker login` wrote before it was set up.
            if let Some(found) = file.entry(path, host, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn revision(&self, _host: &str, _repository: &str) -> u64 {
        let mut all = DefaultHasher::new();
        for path in &self.files {
            let seen = std::fs::metadata(path).ok();
            let seen = seen
                .map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime_nsec()));
            seen.hash(&mut all);
        }
        all.finish()
    }

    fn trouble(&self, host: &str, _repository: &str) -> Option<String> {
        self.failures.of_host(host)
    }
}

impl DockerConfig {
    /// The login that a helper has for `server`, which stands for `host`. One that has just failed is not asked.
    async fn ask_helper(&self, name: &str, server: &str, host: &str) -> Option<Credential> {
        if self.failures.is_recent(name, host) {
            return None;
        }
        match helper::get(name, server, self.helper_timeout).await {
            Ok(found) => {
                self.failures.forget(name, host);
                found
            }
            Err(why) => {
                self.failures.note(name, host, why);
                None
            }
        }
    }
}

async fn read(path: &Path, host: &str) -> Result<Option<File>> {
    let failed = |what: String| Error::credentials(host, format!("{}: {what}", path.display()));
    let size = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // Another user's home, as when a service runs without privileges: as good as no file.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::warn!(file = %path.display(), "logins cannot be read: permission denied");
            return Ok(None);
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    if size > MAX_FILE {
        return Err(failed(format!("larger than {MAX_FILE} bytes, this is not a Docker configuration")));
    }
    let text = match tokio::fs::read(path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    parse(&text).map(Some).map_err(|what| failed(format!("{what}; run `docker login` anew")))
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl File {
    /// The name of the helper for this host, and the server to ask it for.
    fn helper(&self, host: &str, repository: &str) -> Option<(String, String)> {
        let server = if same_registry(host, "docker.io") { DOCKER_HUB_KEY } else { host };
        let helpers = self.cred_helpers.iter().flatten();
        let own = helpers.filter(|(key, name)| !name.is_empty() && rank(key, host, repository).is_some());
        if let Some((key, name)) = own.max_by_key(|(key, _)| key.len()) {
            let asked = if server == DOCKER_HUB_KEY { server } else { key.as_str() };
            return Some((name.clone(), asked.to_owned()));
        }
        let store = self.creds_store.clone().filter(|name| !name.is_empty())?;
        Some((store, server.to_owned()))
    }

    /// What the file itself holds for this host.
    fn entry(&self, path: &Path, host: &str, repository: &str) -> Result<Option<Credential>> {
        let entries = self.auths.iter().flatten().filter(|(_, entry)| !entry.is_empty());
        let ranked = entries.filter_map(|(key, entry)| Some((rank(key, host, repository)?, key, entry)));
        let Some((_, key, entry)) = ranked.max_by_key(|(rank, _, _)| *rank) else { return Ok(None) };
        entry
            .credential()
            .map_err(|why| Error::credentials(host, format!("{}, entry `{key}`: {why}", path.display())))
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.identitytoken, &self.registrytoken]
            .into_iter()
            .all(|field| field.as_deref().is_none_or(str::is_empty))
    }

    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let set = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = set(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(token) = set(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(auth) = set(&self.auth) {
            let decoded = Credential::from_auth(&auth);
            return decoded.map(Some).ok_or(
                "`auth` is not base64 of a name, a colon and what belongs to it; run `docker login` anew",
            );
        }
        let password = || self.password.clone().unwrap_or_default();
        Ok(set(&self.username).map(|username| Credential::from_pair(username, password())))
    }
}

/// The logins of one configuration in memory, as Kubernetes keeps them. Which of them fits a repository is for the
/// caller to say: the rules for keys differ. `Debug` shows no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerAuths {
    /// Keys as they were written (`https://index.docker.io/v1/`, `host[:port][/path]`), each with its login.
    pub entries: Vec<(String, Credential)>,
    /// Keys whose login cannot be used, such as an `auth` that is not base64.
    pub broken: Vec<String>,
}

impl DockerAuths {
    /// From `{"auths": {key: login}}`: Docker's `config.json`, and Kubernetes' `.dockerconfigjson`. Helpers are not
    /// asked.
    ///
    /// # Errors
    /// The place of the mistake, without what stands there, if this is no such JSON.
    pub fn from_json(json: &[u8]) -> std::result::Result<Self, String> {
        Ok(Self::new(parse::<File>(json)?.auths.unwrap_or_default()))
    }

    /// From `{key: login}`: Docker's configuration before 1.7, and Kubernetes' `.dockercfg`.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_legacy_json(json: &[u8]) -> std::result::Result<Self, String> {
        Ok(Self::new(parse(json)?))
    }

    fn new(auths: BTreeMap<String, Entry>) -> Self {
        let mut all = Self::default();
        for (key, entry) in auths {
            match entry.credential() {
                Ok(Some(credential)) => all.entries.push((key, credential)),
                Ok(None) => {}
                Err(_) => all.broken.push(key),
            }
        }
        all
    }
}

/// serde's message may quote a value, so only the place is told.
fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> std::result::Result<T, String> {
    serde_json::from_slice(json)
        .map_err(|e| format!("not valid, see line {} column {}", e.line(), e.column()))
}

/// How well a key of the file fits: `None` if not at all, otherwise larger for a longer, more exact one.
fn rank(key: &str, host: &str, repository: &str) -> Option<usize> {
    let (has_scheme, bare) = match key.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, key),
    };
    let (key_host, path) = bare.split_once('/').unwrap_or((bare, ""));
    if !same_registry(key_host, host) {
        return None;
    }
    let path = path.trim_matches('/');
    // `https://host/v1/` is Docker's way, `host/namespace/name` Podman's.
    if path.is_empty() || matches!(path, "v1" | "v2") || has_scheme {
        return Some(1);
    }
    let within =
        repository == path || repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    within.then_some(1 + path.len())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn find(json: &str, host: &str, repository: &str) -> String {
        let file: File = serde_json::from_str(json).unwrap();
        if let Some((name, server)) = file.helper(host, repository) {
            return format!("helper {name} {server}");
        }
        match file.entry(Path::new("c.json"), host, repository).unwrap() {
            Some(Credential::Password { username, password }) => format!("{username}:{password}"),
            Some(Credential::IdentityToken(token)) => format!("identity {token}"),
            Some(Credential::RegistryToken(token)) => format!("registry {token}"),
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn keys_are_normalised() {
        // me:pa:ss, and the same without padding
        for key in ["h.io", "https://h.io", "http://h.io/", "https://h.io/v1/", "h.io/v2/"] {
            let json =
                format!(r#"{{"auths":{{"{key}":{{"auth":"bWU6cGE6c3M="}},"x.h.io":{{"auth":"eDp5"}}}}}}"#);
            assert_eq!(find(&json, "h.io", "a/b"), "me:pa:ss", "{key}");
            assert_eq!(find(&json, "other.io", "a/b"), "nothing", "{key}");
        }
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cGE6c3M"}}}"#;
        assert_eq!(find(json, "registry-1.docker.io", "library/x"), "me:pa:ss");
        assert_eq!(find(json, "docker.io", "library/x"), "me:pa:ss");
    }

    #[test]
    fn ports_are_part_of_the_name() {
        let json = r#"{"auths":{"localhost:5000":{"auth":"YTpi"},"localhost":{"auth":"Yzpk"}}}"#;
        assert_eq!(find(json, "localhost:5000", "x"), "a:b");
        assert_eq!(find(json, "localhost", "x"), "c:d");
        assert_eq!(find(json, "localhost:5001", "x"), "nothing");
    }

    #[test]
    fn podman_namespaces_longest_first() {
        let json = r#"{"auths":{"q.io":{"auth":"YTpi"},"q.io/team":{"auth":"Yzpk"},"q.io/team/app":{"auth":"ZTpm"}}}"#;
        assert_eq!(find(json, "q.io", "other/app"), "a:b");
        assert_eq!(find(json, "q.io", "team/x"), "c:d");
        assert_eq!(find(json, "q.io", "team/app"), "e:f");
        assert_eq!(find(json, "q.io", "teammate/app"), "a:b");
    }

    #[test]
    fn tokens_and_plain_fields() {
        let json = r#"{"auths":{"a":{"identitytoken":"t","auth":"YTpi"},"b":{"registrytoken":"r"},
                       "c":{"username":"u","password":"p"},"d":{"auth":"OnRvaw=="},"e":{}}}"#;
        assert_eq!(find(json, "a", "x"), "identity t");
        assert_eq!(find(json, "b", "x"), "registry r");
        assert_eq!(find(json, "c", "x"), "u:p");
        assert_eq!(find(json, "d", "x"), "identity tok");
        assert_eq!(find(json, "e", "x"), "nothing");
    }

    #[test]
    fn helpers_come_first() {
        let json = r#"{"auths":{"a":{"auth":"YTpi"}},"credHelpers":{"b":"bee","c":""},"credsStore":"store"}"#;
        assert_eq!(find(json, "b", "x"), "helper bee b");
        assert_eq!(find(json, "a", "x"), "helper store a");
        assert_eq!(find(json, "docker.io", "x"), "helper store https://index.docker.io/v1/");
    }

    #[test]
    fn auths_in_memory() {
        let entries =
            r#"{"h/a":{"auth":"YTpi"},"b":{"auth":"c2VjcmV0"},"c":{},"d":{"username":"u","password":"p"}}"#;
        let auths = DockerAuths::from_json(format!(r#"{{"auths":{entries}}}"#).as_bytes()).unwrap();
        assert_eq!(auths, DockerAuths::from_legacy_json(entries.as_bytes()).unwrap());
        let expected = [("h/a", Credential::password("a", "b")), ("d", Credential::password("u", "p"))];
        let mut found = auths.entries.clone();
        found.sort_by_key(|(key, _)| key.len() != 3);
        assert_eq!(found, expected.map(|(key, credential)| (key.to_owned(), credential)));
        assert_eq!(auths.broken, ["b"]);
        assert!(!format!("{auths:?}").contains("c2Vj"));

        let error = DockerAuths::from_json(br#"{"auths":{"a":"hush"}}"#).unwrap_err();
        assert!(error.contains("line 1") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn broken_auth_is_an_error_without_the_secret() {
        let file: File = serde_json::from_str(r#"{"auths":{"a":{"auth":"c2VjcmV0"}}}"#).unwrap();
        let error = file.entry(Path::new("c.json"), "a", "x").err().unwrap().to_string();
        assert!(error.contains("c.json") && error.contains("`a`"), "{error}");
        assert!(!error.contains("c2VjcmV0") && !error.contains("secret"), "{error}");
    }
}
