//! Credentials, and who has them.

use std::fmt;
use std::hash::Hash;

use async_trait::async_trait;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::error::Result;

/// The user name by which a helper says that the secret is an identity token.
pub(super) const TOKEN_USER: &str = "<token>";

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
        decode(auth).map(|(username, password)| Self::from_pair(username, password))
    }

    /// containerd and ECR write an identity token as the password of nobody.
    pub(crate) fn from_pair(username: String, password: String) -> Self {
        if username.is_empty() || username == TOKEN_USER {
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

pub(super) fn decode(auth: &str) -> Option<(String, String)> {
    // Some tools leave out the padding.
    let padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, padding).decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker itself cuts zero bytes off, left there by old versions.
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}
