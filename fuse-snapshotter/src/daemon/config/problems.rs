//! What is well-formed but cannot work: said at start-up, before it shows as slowness or as a failed pull.
//!
//! Looking for problems waits for nothing: files are looked at, sockets are tried without blocking, and no name is
//! resolved.

use std::fmt;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry::{Anonymous, Client, ClientConfig, Digest};

use super::configuration::Config;
use super::file::File;
use super::hosts::{names, without_scheme};
use super::settings::{ContentStore, MetricsEndpoint};
use super::sockets::listens;
use super::tables::http::{Host, Mirror, Registry, Resolver};
use super::values::{full_name, limit};
use crate::daemon::keychain::kubernetes::{self, WithoutKubernetes};

/// Smallest cache that is of use, in bytes: reads of a few spans at a time have to fit.
const USEFUL_CACHE: u64 = 256 << 20;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It may be intended, or pass; the daemon starts.
    Warning,
    /// What is configured cannot work; the daemon does not start.
    Error,
}

/// Something that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The key with its tables.
    pub key: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn error(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { severity: Severity::Error, key: key.into(), message: message.into() });
    }

    fn warning(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { severity: Severity::Warning, key: key.into(), message: message.into() });
    }
}

impl Config {
    /// What cannot work, errors first.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found::default();
        self.check_mirrors(&mut found);
        self.check_hosts_files(&mut found);
        self.check_chosen_indexes(&mut found);
        self.check_limits(&mut found);
        self.check_sockets(&mut found);
        self.check_metrics(&mut found);
        self.check_keychains(kubernetes::BUILT_IN, &mut found);
        found.0.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        found.0
    }

    fn check_mirrors(&self, found: &mut Found) {
        for (name, host) in &self.file.resolver.host {
            let key = format!("resolver.host.\"{name}\"");
            if name.is_empty() || name.contains("://") || name.contains('/') {
                found.error(&key, "expected a registry as in image references, host or host:port");
            }
            for mirror in &host.mirrors {
                check_mirror(&key, name, mirror, found);
            }
        }
        for (name, given) in names(self) {
            if given.len() > 1 {
                let message = format!(
                    "{} are one registry, {name}: put the mirrors into one of them",
                    given.join(" and ")
                );
                found.error("resolver.host", message);
            }
            // An explicit entry is not merged with a file, which is easily overlooked.
            let files = self.hosts_dir();
            let directories = files.iter().flat_map(std::env::split_paths);
            if let Some(directory) =
                directories.map(|directory| directory.join(&name)).find(|directory| directory.is_dir())
            {
                let message = format!("{} is not used, because this entry comes first", directory.display());
                found.warning(format!("resolver.host.\"{name}\""), message);
            }
        }
    }

    fn check_chosen_indexes(&self, found: &mut Found) {
        for (image, index) in &self.file.pull_modes.index {
            let key = format!("pull_modes.index.\"{image}\"");
            if full_name(image).is_none() {
                found.error(&key, "expected a full image reference, or host/repository");
            }
            if index.digest.parse::<Digest>().is_err() {
                found.error(&key, "digest: expected the digest of a SOCI index, sha256:…");
            }
        }
    }

    fn check_hosts_files(&self, found: &mut Found) {
        let key = "registry.config_path";
        let Some(path) = self.hosts_dir() else { return };
        if self.file.registry != Registry::default() {
            for directory in std::env::split_paths(&path).filter(|directory| !directory.is_dir()) {
                found.warning(key, format!("{} is not a directory", directory.display()));
            }
        }
        if let Err(error) = Client::new(ClientConfig { hosts_dir: Some(path), ..ClientConfig::default() }) {
            found.error(key, error.to_string());
        }
    }

    fn check_limits(&self, found: &mut Found) {
        let parallel = &self.file.pull_modes.parallel_pull_unpack;
        let pairs = [
            (
                "max_concurrent_downloads",
                parallel.max_concurrent_downloads,
                parallel.max_concurrent_downloads_per_image,
            ),
            (
                "max_concurrent_unpacks",
                parallel.max_concurrent_unpacks,
                parallel.max_concurrent_unpacks_per_image,
            ),
        ];
        for (name, all, each) in pairs {
            let key = format!("pull_modes.parallel_pull_unpack.{name}");
            match (limit(all), limit(each)) {
                (Some(all), Some(each)) if all < each => {
                    found.error(key, format!("{all} for all images is less than {each} for each image"));
                }
                (Some(all), None) => {
                    found.error(key, format!("{all} for all images is less than no limit for each image"));
                }
                _ => {}
            }
        }
        let pull = self.settings().pull;
        if pull.always_unpack && (pull.v1 || pull.v2) {
            found.warning(
                "pull_modes.parallel_pull_unpack.enable",
                "it comes before indexes: no image is read lazily",
            );
        } else if !(pull.v1 || pull.v2 || pull.always_unpack) {
            found.warning("pull_modes", "neither soci_v1 nor soci_v2 is enabled: no image is read lazily");
        }
        let size = self.file.cache.max_size;
        if size.0 < USEFUL_CACHE {
            found.warning(
                "cache.max_size",
                format!("{size} is little; contents will be fetched again and again"),
            );
        }
        let http = &self.file.http;
        if http.min_wait_msec > http.max_wait_msec {
            found.warning("http.MinWaitMsec", "it is above http.MaxWaitMsec, which applies");
        }
    }

    fn check_sockets(&self, found: &mut Found) {
        if let ContentStore::Containerd { address } = self.content_store()
            && let Err(reason) = listens(&address)
        {
            found.warning(
                "content_store.containerd_address",
                format!("{reason}; until containerd answers there, the registry is asked instead"),
            );
        }
        if let Some(address) = self.cri_keychain()
            && let Err(reason) = listens(&address)
        {
            found.warning(
                "cri_keychain.image_service_path",
                format!(
                    "{reason}; until it answers there, the kubelet cannot pull images through this program"
                ),
            );
        }
    }

    fn check_metrics(&self, found: &mut Found) {
        match self.metrics() {
            Some(MetricsEndpoint::Unix(path)) if !path.is_absolute() => {
                found.error("metrics_address", format!("{} is not an absolute path", path.display()));
            }
            Some(MetricsEndpoint::Tcp(address)) => {
                if address.starts_with('/') {
                    found.error(
                        "metrics_address",
                        format!("{address} is a path; set metrics_network to \"unix\""),
                    );
                } else if !is_tcp_address(&address) {
                    found.error("metrics_address", format!("expected host:port instead of {address}"));
                }
            }
            _ => {}
        }
        if self.file.no_prometheus && !self.file.metrics_address.is_empty() {
            found.warning("metrics_address", "metrics are not served, because no_prometheus is set");
        }
    }

    /// `built_in`: this program has a client of Kubernetes.
    fn check_keychains(&self, built_in: bool, found: &mut Found) {
        if !self.kubeconfig_keychain() {
            return;
        }
        if !built_in {
            found.error("kubeconfig_keychain.enable_keychain", WithoutKubernetes.to_string());
            return;
        }
        let key = "kubeconfig_keychain.kubeconfig_path";
        if let Some(path) = self.kubeconfig_path() {
            if !path.is_file() {
                let message = format!("{} is not there (yet); pulls do without its logins", path.display());
                found.warning(key, message);
            }
        } else if !usual_kubeconfigs().iter().any(|path| path.is_file()) {
            let message = "no kubeconfig is in the usual places (yet); pulls do without its logins";
            found.warning(key, message);
        }
    }
}

fn check_mirror(key: &str, name: &str, mirror: &Mirror, found: &mut Found) {
    let key = format!("{key}.mirrors");
    let given = mirror.host.trim();
    // A password that somebody wrote here by mistake is not to be logged.
    let shown = given.rsplit_once('@').map_or(given, |(_, server)| server);
    let rest = without_scheme(given);
    let server = rest.split(['/', ':']).next().unwrap_or_default();
    if given.is_empty() {
        found.error(key, "a mirror needs a host, such as \"https://mirror.example.com\"");
        return;
    }
    // `https:/mirror` and `http//mirror` are well-formed names of a host `https` and `http`.
    if matches!(server, "http" | "https") || given.contains(char::is_whitespace) || rest.contains("//") {
        found.error(key, format!("`{shown}` is not a server: expected https://host[:port][/path]"));
        return;
    }
    if mirror.insecure && given.starts_with("https://") {
        let message = format!("`{shown}` is reached by plain HTTP, because it is marked as insecure");
        found.warning(&key, message);
    }
    let only = Config {
        file: File {
            resolver: Resolver {
                host: [(name.to_owned(), Host { mirrors: vec![mirror.clone()] })].into(),
                ..Resolver::default()
            },
            ..Config::default().file
        },
    };
    let config = ClientConfig { hosts_dir: None, ..only.client_config(Arc::new(Anonymous)) };
    if let Err(error) = Client::new(config) {
        found.error(key, error.to_string());
    }
}

/// Whether this is `host:port`, where the host may be missing. Names are not resolved: that could take long.
fn is_tcp_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    if port.parse::<u16>().is_err() {
        return false;
    }
    let literal = host.is_empty() || host.starts_with('[') || host.contains(':');
    if literal {
        return host.is_empty() || address.to_socket_addrs().is_ok_and(|mut found| found.next().is_some());
    }
    host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Where kubectl finds the cluster.
fn usual_kubeconfigs() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Some(given) = std::env::var_os("KUBECONFIG") {
        paths.extend(std::env::split_paths(&given));
    }
    if let Some(home) = std::env::var_os("HOME") {
        paths.push(Path::new(&home).join(".kube/config"));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_kubernetes_refuses_its_keychain_and_says_what_to_do() {
        let mut config = Config::default();
        let problems = |config: &Config, built_in| {
            let mut found = Found::default();
            config.check_keychains(built_in, &mut found);
            found.0
        };
        assert_eq!(problems(&config, false), []);
        config.file.kubeconfig_keychain.enable_keychain = true;
        config.file.kubeconfig_keychain.kubeconfig_path = "/nowhere".into();
        let [refused] = &problems(&config, false)[..] else { unreachable!() };
        assert_eq!(
            (refused.severity, &*refused.key),
            (Severity::Error, "kubeconfig_keychain.enable_keychain")
        );
        assert!(refused.message.contains("--features kubernetes"), "{refused}");
        let with = problems(&config, true);
        assert!(with.iter().all(|problem| problem.severity == Severity::Warning), "{with:?}");
    }
}
