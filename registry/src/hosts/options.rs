//! What is configured for a host: the servers that are asked for its images, and how.

use std::fmt;
use std::time::Duration;

use crate::tls_options::TlsOptions;

/// What a server may be used for (`capabilities` in `hosts.toml`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Content by digest: manifests, blobs, referrers.
    pub pull: bool,
    /// Finding out what a tag means.
    pub resolve: bool,
    /// Uploads.
    pub push: bool,
}

impl Capabilities {
    /// Everything; what applies when nothing is said.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// How one server is reached. `Debug` shows the names of the headers only.
#[derive(Clone)]
pub struct ServerConfig {
    /// `https://host[:port][/path]`, `http://…` for plain HTTP, or a bare `host[:port]`; `/v2` is added to the path
    /// unless [`Self::override_path`] is set. `None` only for the registry itself: its own name.
    pub url: Option<String>,
    /// What it may be used for.
    pub capabilities: Capabilities,
    /// TLS settings, on top of the client's.
    pub tls: TlsOptions,
    /// Take the path of the URL as it is.
    pub override_path: bool,
    /// Headers to add to each request.
    pub headers: Vec<(String, String)>,
    /// Time to connect, instead of the client's.
    pub connect_timeout: Option<Duration>,
    /// Time to the first byte of an answer, instead of the client's.
    pub response_timeout: Option<Duration>,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("ServerConfig")
            .field("url", &self.url.as_deref().map(crate::redact::message))
            .field("capabilities", &self.capabilities)
            .field("tls", &self.tls)
            .field("override_path", &self.override_path)
            .field("headers", &headers)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish()
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            url: None,
            capabilities: Capabilities::ALL,
            tls: TlsOptions::default(),
            override_path: false,
            headers: Vec::new(),
            connect_timeout: None,
            response_timeout: None,
        }
    }
}

impl ServerConfig {
    /// The server at `url`, for everything.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }
}

/// The servers behind one registry name.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Asked first, in this order, for what their capabilities allow.
    pub mirrors: Vec<ServerConfig>,
    /// The registry itself, asked last; the only one for uploads, unless a mirror has the push capability.
    pub server: ServerConfig,
}
