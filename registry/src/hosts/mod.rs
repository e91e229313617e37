//! Which servers stand behind a registry's name: mirrors, the registry itself, and how to reach each.
//!
//! Configuration comes from containerd's `hosts.toml` files (see [`file`]) or from
//! [`ClientConfig::hosts`](crate::ClientConfig). For each request for content the mirrors are asked in their order,
//! then the registry itself.

mod endpoint;
mod file;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{ClientConfig, TlsOptions};
use crate::error::Result;
use crate::reference::{api_host, split_port};

pub(crate) use endpoint::Endpoint;

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

/// Whether `host[:port]` is this machine, where plain HTTP is the custom and nobody can listen in.
pub(crate) fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// All that is known about hosts, resolved when first used.
#[derive(Debug)]
pub(crate) struct Hosts {
    dirs: Vec<PathBuf>,
    config: ClientConfig,
    routes: Mutex<HashMap<String, Arc<Route>>>,
}

impl Hosts {
    /// # Errors
    /// Whatever is wrong in any of the files or in the explicit configuration, so that a mistake shows at start-up.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self> {
        let dirs: Vec<_> = config.hosts_dir.iter().flat_map(std::env::split_paths).collect();
        for dir in &dirs {
            file::validate(dir)?;
        }
        let hosts = Self { dirs, config: config.clone(), routes: Mutex::default() };
        for (host, host_config) in &config.hosts {
            Route::new(host, host_config, config)?;
        }
        Ok(hosts)
    }

    /// The servers for `host`, a registry as named in references. Kept from then on.
    pub(crate) fn route(&self, host: &str) -> Result<Arc<Route>> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(host) {
            return Ok(route.clone());
        }
        let found = match self.config.hosts.get(host) {
            Some(explicit) => explicit.clone(),
            None => self
                .dirs
                .iter()
                .find_map(|dir| file::load(dir, host).transpose())
                .transpose()?
                .unwrap_or_default(),
        };
        let route = Arc::new(Route::new(host, &found, &self.config)?);
        routes.insert(host.to_owned(), route.clone());
        Ok(route)
    }
}

/// The servers of one registry, ready for requests.
#[derive(Debug)]
pub(crate) struct Route {
    endpoints: Vec<Arc<Endpoint>>,
}

impl Route {
    fn new(host: &str, found: &HostConfig, config: &ClientConfig) -> Result<Self> {
        let mut endpoints = Vec::new();
        for mirror in &found.mirrors {
            endpoints.push(Arc::new(Endpoint::new(host, mirror, config, false)?));
        }
        endpoints.push(Arc::new(Endpoint::new(host, &found.server, config, true)?));
        Ok(Self { endpoints })
    }

    /// The servers to ask for content, in order. Mirrors that were unreachable moments ago are left out: a dead
    /// one must not cost every ranged read a connect timeout.
    pub(crate) fn for_pull(&self, needs_resolve: bool) -> Vec<Arc<Endpoint>> {
        let able = |endpoint: &&Arc<Endpoint>| {
            let has = endpoint.capabilities();
            if needs_resolve { has.resolve } else { has.pull }
        };
        let all: Vec<_> = self.endpoints.iter().filter(able).cloned().collect();
        let up: Vec<_> = all.iter().filter(|e| e.is_origin() || !e.is_down()).cloned().collect();
        if up.is_empty() { all } else { up }
    }

    /// The server for uploads: the first with that capability, but the registry itself before any mirror.
    pub(crate) fn for_push(&self) -> Option<Arc<Endpoint>> {
        let mut able = self.endpoints.iter().filter(|e| e.capabilities().push);
        able.clone().find(|e| e.is_origin()).or_else(|| able.next()).cloned()
    }
}

/// Reads a `hosts.toml` as at the start of a client: what it says must make servers, too.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) -> Result<HostConfig> {
    let found = file::parse(std::path::Path::new("hosts.toml"), text)?;
    Route::new("registry.invalid", &found, &ClientConfig::default())?;
    Ok(found)
}

/// The name that the registry `host` has on the network.
fn server_name(host: &str) -> &str {
    api_host(host)
}
