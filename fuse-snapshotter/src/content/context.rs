//! What all lazily read layers of a daemon share.

use std::sync::Arc;

use super::cache::CacheRoot;
use super::link::links::{Link, Links, Pulling};
use crate::base::metrics::Metrics;

/// What all layers of a daemon share: the cache, the links to registries, and the metrics.
#[derive(Debug, Clone)]
pub struct FetchContext {
    links: Arc<Links>,
    pub(super) link: Arc<Link>,
    pub(super) cache: Arc<CacheRoot>,
    metrics: Arc<Metrics>,
}

impl FetchContext {
    /// At most `connections` requests to a registry at a time.
    #[must_use]
    pub fn new(cache: Arc<CacheRoot>, connections: usize) -> Self {
        let links = Arc::new(Links::new(connections));
        let link = links.of("");
        Self { links, link, cache, metrics: Metrics::new() }
    }

    /// The same for layers in the registry at this host.
    #[must_use]
    pub fn at(&self, host: &str) -> Self {
        Self { link: self.links.of(host), ..self.clone() }
    }

    /// Says that a layer of the registry at this host is being pulled, as long as the result lives: what a container is
    /// expected to read waits for that.
    #[must_use]
    pub fn pulling(&self, host: &str) -> Pulling {
        self.links.of(host).pulling()
    }

    /// The same, whose layers count in these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Where the layers count what they do.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The cache that the layers share.
    #[must_use]
    pub fn cache(&self) -> &CacheRoot {
        &self.cache
    }
}
