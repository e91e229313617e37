//! How registries are reached: the client's limits, and mirrors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry::{
    Capabilities, ClientConfig, CredentialProvider, HostConfig, RetryPolicy, ServerConfig, Timeouts,
};

use super::Config;
use super::file::{Host, Mirror};
use super::settings::{milliseconds, seconds};

/// What stands for "no limit": no answer takes that long, and clocks can still add it.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// Docker Hub's names, which are one registry.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

impl Config {
    /// The client for everything but reads of layers.
    #[must_use]
    pub fn client_config(&self, credentials: Arc<dyn CredentialProvider>) -> ClientConfig {
        let http = &self.file.http;
        ClientConfig {
            hosts_dir: self.hosts_dir(),
            hosts: self.file.resolver.host.iter().map(|(name, host)| host_config(name, host)).collect(),
            credentials,
            timeouts: Timeouts {
                connect: milliseconds(http.dial_timeout_msec),
                response_header: milliseconds(http.response_header_timeout_msec),
                request: milliseconds(http.request_timeout_msec),
                ..Timeouts::default()
            },
            retry: retry(http.max_retries, http.min_wait_msec, http.max_wait_msec),
            ..ClientConfig::default()
        }
    }

    /// The client for reads of layers, if `[blob]` gives it limits of its own. `None` if the client for everything
    /// else will do, which is better: they would not share connections and tokens.
    #[must_use]
    pub fn blob_client_config(&self, credentials: Arc<dyn CredentialProvider>) -> Option<ClientConfig> {
        let common = self.client_config(credentials);
        let blob = &self.file.blob;
        let mut own = retry(blob.max_retries, blob.min_wait_msec, blob.max_wait_msec);
        own.max_elapsed = seconds(blob.fetching_timeout_sec);
        (own != common.retry).then(|| ClientConfig { retry: own, ..common })
    }

    /// The search path of `hosts.toml` files.
    pub(super) fn hosts_dir(&self) -> Option<PathBuf> {
        let path = &self.file.registry.config_path;
        (!path.is_empty()).then(|| PathBuf::from(path))
    }
}

fn retry(retries: i64, min_wait: i64, max_wait: i64) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    policy.max_retries = u32::try_from(retries.max(0)).unwrap_or(u32::MAX);
    policy.min_wait = milliseconds(min_wait);
    policy.max_wait = milliseconds(max_wait);
    policy
}

/// The mirrors of one registry, under the name that references have for it.
fn host_config(name: &str, host: &Host) -> (String, HostConfig) {
    let name = if DOCKER_HUB.contains(&name) { DOCKER_HUB[0] } else { name };
    let mut config = HostConfig::default();
    for mirror in &host.mirrors {
        let server = server(mirror);
        if is_itself(name, &mirror.host) {
            // It is asked in any case, last; what is said is how.
            config.server = ServerConfig { capabilities: Capabilities::ALL, ..server };
        } else {
            config.mirrors.push(server);
        }
    }
    (name.to_owned(), config)
}

fn server(mirror: &Mirror) -> ServerConfig {
    let given = mirror.host.trim();
    let url = if mirror.insecure {
        // As in the reference, where `insecure` alone decides.
        format!("http://{}", without_scheme(given))
    } else {
        given.to_owned()
    };
    ServerConfig {
        // Tags are resolved by the registry itself: a mirror of the reference has layers, and may be behind.
        capabilities: Capabilities { pull: true, resolve: false, push: false },
        response_timeout: match mirror.request_timeout_sec {
            0 => None,
            ..0 => Some(FOREVER),
            number => Some(seconds(number)),
        },
        ..ServerConfig::new(url)
    }
}

pub(super) fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}

/// Whether a mirror is the registry that it is a mirror of.
fn is_itself(registry: &str, mirror: &str) -> bool {
    let rest = without_scheme(mirror.trim());
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let rest = rest.strip_suffix("/v2").unwrap_or(rest);
    rest.eq_ignore_ascii_case(registry) || (registry == DOCKER_HUB[0] && DOCKER_HUB.contains(&rest))
}

/// The same registry's mirrors under two names, which Docker Hub has.
pub(super) fn names(config: &Config) -> BTreeMap<String, Vec<&str>> {
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, host) in &config.file.resolver.host {
        names.entry(host_config(name, host).0).or_default().push(name);
    }
    names
}
