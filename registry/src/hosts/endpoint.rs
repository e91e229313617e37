//! One server: its URLs, TLS settings, extra headers, and whether it was reachable lately.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::name::{is_loopback, server_name};
use super::options::{Capabilities, ServerConfig};
use crate::config::ClientConfig;
use crate::error::{Error, Result};
use crate::reference::api_host;
use crate::tls_options::TlsOptions;

/// How long a mirror that could not be reached is left alone.
const DOWN_FOR: Duration = Duration::from_secs(10);

/// How long a server that lacked the referrers API is believed to. It may be upgraded, and the fallback tags stay.
const LACKS_REFERRERS_FOR: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Endpoint {
    base: Url,
    host: String,
    /// Sent to mirrors as `ns=`: the registry that they stand for, as containerd does.
    namespace: Option<String>,
    capabilities: Capabilities,
    tls: Arc<TlsOptions>,
    headers: HeaderMap,
    connect_timeout: Duration,
    response_timeout: Duration,
    origin: bool,
    made: Instant,
    /// Milliseconds after `made` until which the server counts as down; 0 for never.
    down_until: AtomicU64,
    /// It has the referrers API.
    lists_referrers: AtomicBool,
    /// Milliseconds after `made` until which it counts as a server without it.
    lacks_referrers_until: AtomicU64,
}

impl Endpoint {
    pub(super) fn new(
        registry: &str,
        server: &ServerConfig,
        config: &ClientConfig,
        origin: bool,
    ) -> Result<Self> {
        let tls = server.tls.over(&config.tls);
        let base = base_url(registry, server, config, &tls)?;
        let host = authority(&base);
        let itself = Url::parse(&format!("{}://{}", base.scheme(), api_host(registry)));
        let is_itself = itself.is_ok_and(|url| url.origin() == base.origin());
        let mut headers = HeaderMap::new();
        for (name, value) in &server.headers {
            let bad =
                || Error::config(format!("registry {registry}: header `{name}` is not a valid HTTP header"));
            let name = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(Self {
            namespace: (!is_itself).then(|| registry.to_owned()),
            base,
            host,
            capabilities: server.capabilities,
            tls: Arc::new(tls),
            headers,
            connect_timeout: server.connect_timeout.unwrap_or(config.timeouts.connect),
            response_timeout: server.response_timeout.unwrap_or(config.timeouts.response_header),
            origin,
            made: Instant::now(),
            down_until: AtomicU64::new(0),
            lists_referrers: AtomicBool::new(false),
            lacks_referrers_until: AtomicU64::new(0),
        })
    }

    /// `host[:port]`, for messages and for looking up credentials.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    pub(crate) fn is_origin(&self) -> bool {
        self.origin
    }

    pub(crate) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    pub(crate) fn tls(&self) -> &Arc<TlsOptions> {
        &self.tls
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Whether `url` is on this very server (scheme, host and port), so that it may see its credentials.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// `<base>/<repository>/<tail>[?ns=…&query…]`.
    pub(crate) fn url(&self, repository: &str, tail: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/{repository}/{tail}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        if self.namespace.is_some() || !query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            if let Some(namespace) = &self.namespace {
                pairs.append_pair("ns", namespace);
            }
            pairs.extend_pairs(query);
        }
        url
    }

    /// Whether the server has the referrers API, as far as earlier requests have shown.
    pub(crate) fn lists_referrers(&self) -> Option<bool> {
        if self.lists_referrers.load(Relaxed) {
            return Some(true);
        }
        (self.milliseconds() < self.lacks_referrers_until.load(Relaxed)).then_some(false)
    }

    pub(crate) fn note_lists_referrers(&self, has: bool) {
        self.lists_referrers.store(has, Relaxed);
        let until = self.made.elapsed() + LACKS_REFERRERS_FOR;
        self.lacks_referrers_until.store(if has { 0 } else { until.as_millis() as u64 }, Relaxed);
    }

    /// Notes that the server could not be reached.
    pub(crate) fn mark_down(&self) {
        self.down_until.store((self.made.elapsed() + DOWN_FOR).as_millis() as u64, Relaxed);
    }

    pub(crate) fn mark_up(&self) {
        self.down_until.store(0, Relaxed);
    }

    pub(crate) fn is_down(&self) -> bool {
        self.milliseconds() < self.down_until.load(Relaxed)
    }

    fn milliseconds(&self) -> u64 {
        self.made.elapsed().as_millis() as u64
    }
}

/// `host[:port]` of `url`, the port only where it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn base_url(registry: &str, server: &ServerConfig, config: &ClientConfig, tls: &TlsOptions) -> Result<Url> {
    let given = server.url.as_deref().map_or(server_name(registry), str::trim);
    let bad = |why: &str| {
        let shown = crate::redact::message(given);
        Error::config(format!("registry {registry}: server `{shown}`: {why}"))
    };
    let text = if given.contains("://") {
        given.to_owned()
    } else {
        let bare_host = given.split('/').next().unwrap_or_default();
        let plain = config.plain_http || (is_loopback(bare_host) && !tls.wants_tls());
        format!("{}://{given}", if plain { "http" } else { "https" })
    };
    let mut url = Url::parse(&text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("the scheme must be https or http"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("there is no host in it"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("user names and passwords belong into the Docker configuration, not here"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("a query has no place here"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !server.override_path && !path.ends_with("/v2") {
        url.set_path(&format!("{path}/v2"));
    } else {
        url.set_path(&path);
    }
    Ok(url)
}
