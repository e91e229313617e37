//! The servers that are asked for a repository, in their order.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::options::HostConfig;
use crate::config::ClientConfig;
use crate::error::Result;

/// The servers of one registry, ready for requests.
#[derive(Debug)]
pub(crate) struct Route {
    endpoints: Vec<Arc<Endpoint>>,
}

impl Route {
    pub(super) fn new(host: &str, found: &HostConfig, config: &ClientConfig) -> Result<Self> {
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
