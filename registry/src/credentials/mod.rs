//! Where user names, passwords and tokens come from.

mod docker_config;
mod failures;
mod helper;
mod provider;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;

pub use docker_config::{DockerAuths, DockerConfig};
pub use provider::{Credential, CredentialProvider, same_registry};

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
