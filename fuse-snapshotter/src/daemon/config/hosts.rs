//! How registries are reached: the client's limits, and mirrors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry::{
    Capabilities, ClientConfig, CredentialProvider, HostConfig, RetryPolicy, ServerConfig, Timeouts,
};

use super::configuration::Config;
use super::tables::http::{Host, Http, Mirror};
use super::values::{milliseconds, seconds};

/// What stands for "no limit": no answer takes that long, and clocks can still add it.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// How long a registry that does not answer at all is tried during a pull: a link that was cut for half a minute is no
/// reason to fail one.
const UNREACHABLE_FOR: Duration = Duration::from_secs(45);

/// Docker Hub's names, which are one registry.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

impl Config {
    /// The client, with limits of its own for reads of layers that are read lazily.
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
            retry: self.retry(),
            read_retry: self.read_retry(),
            ..ClientConfig::default()
        }
    }

    fn retry(&self) -> RetryPolicy {
        let http = &self.file.http;
        let mut policy = RetryPolicy::default();
        policy.max_retries = retries(http.max_retries);
        policy.min_wait = milliseconds(http.min_wait_msec);
        policy.max_wait = milliseconds(http.max_wait_msec);
        policy.max_backoff = policy.max_backoff.min(policy.max_wait);
        // Whoever has asked for fewer retries wants to hear of failures early.
        if http.max_retries >= Http::default().max_retries {
            policy.unreachable_for = UNREACHABLE_FOR;
        }
        policy
    }

    /// There is no way back once a layer is committed, so the number of retries has no limit unless one is asked for.
    fn read_retry(&self) -> RetryPolicy {
        let blob = &self.file.blob;
        let mut policy = RetryPolicy::persistent(seconds(blob.fetching_timeout_sec));
        if blob.max_retries != 0 {
            policy.max_retries = retries(blob.max_retries);
        }
        policy.min_wait = milliseconds(blob.min_wait_msec);
        policy.max_wait = milliseconds(blob.max_wait_msec);
        policy.max_backoff = policy.max_backoff.min(policy.max_wait);
        policy
    }

    /// The search path of `hosts.toml` files.
    pub(super) fn hosts_dir(&self) -> Option<PathBuf> {
        let path = &self.file.registry.config_path;
        (!path.is_empty()).then(|| PathBuf::from(path))
    }
}

/// A number of retries; negative ones stand for none.
fn retries(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
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
