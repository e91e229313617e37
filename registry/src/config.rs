//! How a [`Client`](crate::Client) is set up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::{Anonymous, CredentialProvider};
use crate::hosts::options::HostConfig;
use crate::retry::RetryPolicy;
use crate::tls_options::TlsOptions;

/// How long a read of a blob that somebody depends on is tried unless something else is configured. Long enough for a
/// registry to be restarted, and below the patience of most who wait.
const READ_DEADLINE: Duration = Duration::from_secs(300);

/// Settings of a client. Start from [`Default`] and change what is needed.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// Directory in containerd's `certs.d` layout (`<host[:port]>/hosts.toml`). May be several, divided by `:`, as
    /// containerd's `config_path`; a directory that does not exist configures nothing.
    pub hosts_dir: Option<PathBuf>,
    /// Configuration of hosts that does not come from files, by `host[:port]` as in references. A host that is
    /// named here is not looked up in [`Self::hosts_dir`].
    pub hosts: BTreeMap<String, HostConfig>,
    /// Use plain HTTP for registries without a configured scheme, and allow redirects from HTTPS to HTTP.
    /// Loopback hosts get plain HTTP without this.
    pub plain_http: bool,
    /// TLS settings for hosts that have none of their own.
    pub tls: TlsOptions,
    /// Where user names, passwords and tokens come from.
    pub credentials: Arc<dyn CredentialProvider>,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// What happens after transient failures.
    pub retry: RetryPolicy,
    /// The same for reads of blobs that somebody depends on, and that have no other way to the content any more. Such
    /// reads are tried [one by one](crate::BlobReader::attempt) with this policy.
    pub read_retry: RetryPolicy,
    /// Idle connections kept open per host, beside at most 32 over which blobs are read; at least 8 lets a node read several
    /// layers without new handshakes. Concurrency itself is the caller's to limit.
    pub max_idle_per_host: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            user_agent: concat!("soci-snapshotter/", env!("CARGO_PKG_VERSION")).to_owned(),
            hosts_dir: None,
            hosts: BTreeMap::new(),
            plain_http: false,
            tls: TlsOptions::default(),
            credentials: Arc::new(Anonymous),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            read_retry: RetryPolicy::persistent(READ_DEADLINE),
            max_idle_per_host: 16,
        }
    }
}

/// Limits of time for one request; retries start them anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving the name, connecting, and the TLS handshake; 3 s.
    pub connect: Duration,
    /// From sending a request to the first byte of the answer; 10 s. Pull-through caches that first ask their
    /// upstream need more than the 3 s of the reference.
    pub response_header: Duration,
    /// Between two chunks of a body, in either direction; 30 s.
    pub idle: Duration,
    /// Silence after which a server that blobs are read from counts as stalled, if its usual pace gives no reason for more
    /// patience; 3 s. It is doubled with each failure, up to the two limits above.
    pub stall: Duration,
    /// A whole request with its body, for everything but blobs; and the answer to an upload after its last byte;
    /// 300 s.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            response_header: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(3),
            request: Duration::from_secs(300),
        }
    }
}
