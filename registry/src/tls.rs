//! The HTTP clients underneath: one connection pool per TLS setting and purpose, and one for each connection that has a number
//! ([`crate::connections`]).
//!
//! Blobs travel over HTTP/1.1, several connections side by side: with HTTP/2 all ranges of all layers would share
//! one TCP connection and its congestion window. The API may use HTTP/2. Pools are made when first needed, so that
//! a client that only talks plain HTTP neither reads nor needs the system's certificates.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use url::Url;

use crate::certificates;
use crate::config::ClientConfig;
use crate::error::{Error, Result};
use crate::proxy::Proxies;
use crate::tls_options::TlsOptions;

/// Servers with pools of their own. Redirects could name any number of them.
const MAX_APART: usize = 32;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Manifests, referrers, tokens, uploads' bookkeeping.
    Api,
    /// Bodies of blobs, down and up.
    Blob,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// `None` for plain HTTP.
    tls: Option<TlsOptions>,
    connect: Duration,
    purpose: Purpose,
    /// The server, if it has a pool of its own.
    server: Option<String>,
    /// The number of a connection that has a pool of its own.
    connection: Option<usize>,
}

/// All connection pools of a client.
#[derive(Debug)]
pub(crate) struct Pools {
    user_agent: String,
    proxies: Proxies,
    max_idle_per_host: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: HashMap<Key, Pool>,
    /// What is made of TLS settings.
    configs: HashMap<TlsOptions, rustls::ClientConfig>,
    /// Servers that have stalled. They no longer use the pools that all share, so that theirs can be given up.
    apart: HashSet<(String, Purpose)>,
}

/// A pool and when it was made.
#[derive(Debug)]
struct Pool {
    client: reqwest::Client,
    made: Instant,
}

impl Pools {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        // reqwest comes without a crypto provider. Another part of the process may have installed one: fine.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Self {
            user_agent: config.user_agent.clone(),
            proxies: Proxies::from_env(),
            max_idle_per_host: config.max_idle_per_host,
            state: Mutex::default(),
        }
    }

    /// The pool for requests to `url`, with these TLS settings if it is not plain HTTP.
    pub(crate) fn get(
        &self,
        url: &Url,
        tls: &Arc<TlsOptions>,
        connect: Duration,
        purpose: Purpose,
        connection: Option<usize>,
    ) -> Result<reqwest::Client> {
        let tls = (url.scheme() == "https").then(|| (**tls).clone());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let server = Some((server(url), purpose)).filter(|server| state.apart.contains(server));
        let key = Key { tls, connect, purpose, server: server.map(|(server, _)| server), connection };
        if let Some(pool) = state.made.get(&key) {
            return Ok(pool.client.clone());
        }
        let client = self.make(&key, &mut state.configs)?;
        state.made.insert(key, Pool { client: client.clone(), made: Instant::now() });
        Ok(client)
    }

    /// Forgets the idle connections to the server of `url` that are older than `since`, when a request begun was met by
    /// silence: a link that drops everything leaves many connections which look alive, and each would cost another wait.
    /// Other servers keep theirs.
    pub(crate) fn renew(&self, url: &Url, purpose: Purpose, since: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { made, apart, configs } = &mut *state;
        // New pools read the files anew.
        configs.clear();
        let server = server(url);
        if apart.len() >= MAX_APART && !apart.contains(&(server.clone(), purpose)) {
            // Where so many stall it is the link, and no connection is worth anything.
            apart.clear();
            made.clear();
        }
        made.retain(|key, pool| {
            key.purpose != purpose || key.server.as_ref() != Some(&server) || pool.made >= since
        });
        apart.insert((server, purpose));
    }

    fn make(
        &self,
        key: &Key,
        configs: &mut HashMap<TlsOptions, rustls::ClientConfig>,
    ) -> Result<reqwest::Client> {
        // Under a number there may be one more, which was opened before the first was back.
        let idle = if key.connection.is_some() { 2 } else { self.max_idle_per_host };
        let proxies = self.proxies.clone();
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .proxy(reqwest::Proxy::custom(move |url| proxies.of(url)))
            // Redirects are followed by hand: credentials must not travel, and the last URL is remembered.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // reqwest would retry some failures by itself, unseen by our counters and limits.
            .retry(reqwest::retry::never())
            .connect_timeout(key.connect)
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(Duration::from_secs(90))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        if key.purpose == Purpose::Blob {
            builder = builder.http1_only();
        }
        builder = match &key.tls {
            None => builder.tls_certs_only(std::iter::empty()),
            Some(tls) => {
                let mut config = match configs.get(tls) {
                    Some(config) => config.clone(),
                    None => configs.entry(tls.clone()).or_insert(certificates::client_config(tls)?).clone(),
                };
                let protocols: &[&[u8]] =
                    if key.purpose == Purpose::Blob { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
                config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
                builder.tls_backend_preconfigured(config)
            }
        };
        builder.build().map_err(|error| {
            let error = error.without_url();
            let cause = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
            Error::config(format!("cannot set up HTTP: {error}{cause}"))
        })
    }
}

/// What names a server: its scheme, host and port.
pub(crate) fn server(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn pools() -> (Pools, impl Fn(&Pools, &str, Purpose)) {
        let tls = Arc::new(TlsOptions::default());
        let get = move |pools: &Pools, url: &str, purpose| {
            pools.get(&Url::parse(url).unwrap(), &tls, Duration::from_secs(3), purpose, None).unwrap();
        };
        (Pools::new(&ClientConfig::default()), get)
    }

    #[test]
    fn a_server_that_stalls_costs_others_no_connections() {
        let (pools, get) = pools();
        let made = |url: &str| {
            let state = pools.state.lock().unwrap();
            let server = server(&Url::parse(url).unwrap());
            state.made.iter().find(|(key, _)| key.server.as_ref() == Some(&server)).map(|(_, pool)| pool.made)
        };
        let (one, other) = ("http://one/v2/x", "http://other/v2/x");
        get(&pools, one, Purpose::Blob);
        get(&pools, other, Purpose::Blob);
        let shared = pools.state.lock().unwrap().made.values().next().unwrap().made;
        assert_eq!((made(one), made(other)), (None, None));
        let renew = |since| pools.renew(&Url::parse(one).unwrap(), Purpose::Blob, since);
        renew(Instant::now());
        for url in [one, other] {
            get(&pools, url, Purpose::Blob);
            get(&pools, url, Purpose::Api);
        }
        let first = made(one).unwrap();
        assert!(made(other).is_none(), "others still share a pool");
        assert!(pools.state.lock().unwrap().made.values().any(|pool| pool.made == shared));
        // Requests that were under way stall, too, but say nothing about connections made since.
        renew(shared);
        assert_eq!(made(one), Some(first));
        renew(Instant::now());
        assert_eq!(made(one), None);
        get(&pools, one, Purpose::Blob);
        assert!(made(one).unwrap() > first);
    }

    #[test]
    fn pools_are_bounded() {
        let (pools, get) = pools();
        for number in 0..MAX_APART * 3 {
            let url = format!("http://host{number}/");
            pools.renew(&Url::parse(&url).unwrap(), Purpose::Blob, Instant::now());
            get(&pools, &url, Purpose::Blob);
        }
        let state = pools.state.lock().unwrap();
        assert!(state.apart.len() <= MAX_APART && state.made.len() <= MAX_APART);
    }
}
