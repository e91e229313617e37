//! Which servers stand behind a registry's name: mirrors, the registry itself, and how to reach each.
//!
//! Configuration comes from containerd's `hosts.toml` files (see [`file`]) or from
//! [`ClientConfig::hosts`](crate::ClientConfig). For each request for content the mirrors are asked in their order,
//! then the registry itself.

mod endpoint;
mod file;
mod name;
pub(crate) mod options;
mod route;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::ClientConfig;
use crate::error::Result;

pub(crate) use endpoint::Endpoint;
pub use options::{Capabilities, HostConfig, ServerConfig};
pub(crate) use route::Route;

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

/// Reads a `hosts.toml` as at the start of a client: what it says must make servers, too.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) -> Result<HostConfig> {
    let found = file::parse(std::path::Path::new("hosts.toml"), text)?;
    Route::new("registry.invalid", &found, &ClientConfig::default())?;
    Ok(found)
}
