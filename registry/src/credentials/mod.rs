//! Where user names, passwords and tokens come from.

mod docker_config;
mod failures;
mod helper;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;

pub use docker_config::{DockerAuths, DockerConfig};

/// What a registry or its token server may be given. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Credential {
    /// User name and password.
    Password {
        /// The account.
        username: String,
        /// Its password or personal token.
        password: String,
    },
    /// An OAuth2 refresh token, which the token server exchanges (`identitytoken` in Docker's configuration).
    IdentityToken(String),
    /// A ready bearer token for the registry itself (`registrytoken`).
    RegistryToken(String),
}

impl Credential {
    /// User name and password.
    pub fn password(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password { username: username.into(), password: password.into() }
    }

    /// From `auth` in Docker's configuration and in CRI: base64 of `user:password`, padded or not. `None` if it is
    /// something else.
    pub fn from_auth(auth: &str) -> Option<Self> {
        docker_config::decode(auth).map(|(username, password)| Self::from_pair(username, password))
    }

    /// containerd and ECR write an identity token as the password of nobody.
    pub(crate) fn from_pair(username: String, password: String) -> Self {
        if username.is_empty() || username == helper::TOKEN_USER {
            return Self::IdentityToken(password);
        }
        Self::Password { username, password }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// A source of credentials.
#[async_trait]
pub trait CredentialProvider: fmt::Debug + Send + Sync {
    /// The credentials for the registry `host` (`host[:port]` that requests go to; `registry-1.docker.io` for Docker
    /// Hub) and its repository `repository` (for example `library/redis`). `None` if this source has none.
    ///
    /// # Errors
    /// [`Error::Credentials`](crate::Error::Credentials) if there should be some but they cannot be had: the search
    /// ends there, because going on without them would only turn a clear message into a puzzling one.
    async fn credential(&self, host: &str, repository: &str) -> Result<Option<Credential>>;

    /// A number that changes when the answer of [`Self::credential`] may have changed, so that what was made with a
    /// login that is gone can be dropped. It is asked for with every request: a look into memory or at a file's times,
    /// never a program or a server. 0 where nothing changes.
    fn revision(&self, _host: &str, _repository: &str) -> u64 {
        0
    }

    /// What kept this source from a login, if it should have had one: for the message when the registry refuses. One
    /// bounded line without secrets.
    fn trouble(&self, _host: &str, _repository: &str) -> Option<String> {
        None
    }
}

/// No credentials for anybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl CredentialProvider for Anonymous {
    async fn credential(&self, _host: &str, _repository: &str) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// The same credentials for one host, or for all; what `--user name:password` means.
#[derive(Debug, Clone)]
pub struct StaticCredentials {
    host: Option<String>,
    credential: Credential,
}

impl StaticCredentials {
    /// `credential` for every host that asks. For command lines that talk to one registry.
    pub fn new(credential: Credential) -> Self {
        Self { host: None, credential }
    }

    /// `credential` for `host` (`host[:port]` as in references) only.
    pub fn for_host(host: impl Into<String>, credential: Credential) -> Self {
        Self { host: Some(host.into()), credential }
    }

    /// From `name[:password]` as on a command line; without a password it is the empty one.
    pub fn from_user_option(option: &str) -> Self {
        let (username, password) = option.split_once(':').unwrap_or((option, ""));
        Self::new(Credential::password(username, password))
    }
}

#[async_trait]
impl CredentialProvider for StaticCredentials {
    async fn credential(&self, host: &str, _repository: &str) -> Result<Option<Credential>> {
        let matches = self.host.as_deref().is_none_or(|own| same_registry(own, host));
        Ok(matches.then(|| self.credential.clone()))
    }
}

/// Several sources: the first that has something wins, an error ends the search.
#[derive(Debug, Clone)]
pub struct CredentialChain(Vec<Arc<dyn CredentialProvider>>);

impl CredentialChain {
    /// Asks `sources` in their order.
    pub fn new(sources: Vec<Arc<dyn CredentialProvider>>) -> Self {
        Self(sources)
    }
}

#[async_trait]
impl CredentialProvider for CredentialChain {
    async fn credential(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        for source in &self.0 {
            if let Some(found) = source.credential(host, repository).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn revision(&self, host: &str, repository: &str) -> u64 {
        let mut all = DefaultHasher::new();
        self.0.iter().for_each(|source| source.revision(host, repository).hash(&mut all));
        all.finish()
    }

    fn trouble(&self, host: &str, repository: &str) -> Option<String> {
        self.0.iter().find_map(|source| source.trouble(host, repository))
    }
}

/// Whether both names (`host[:port]`) mean the same registry: Docker Hub has several.
pub fn same_registry(a: &str, b: &str) -> bool {
    fn canonical(host: &str) -> &str {
        match host {
            "docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "index.docker.io",
            other => other,
        }
    }
    canonical(a).eq_ignore_ascii_case(canonical(b))
}
