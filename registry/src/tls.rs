//! The HTTP clients underneath: one connection pool per TLS setting and purpose.
//!
//! Blobs travel over HTTP/1.1, several connections side by side: with HTTP/2 all ranges of all layers would share
//! one TCP connection and its congestion window. The API may use HTTP/2. Pools are made when first needed, so that
//! a client that only talks plain HTTP neither reads nor needs the system's certificates.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Certificate, Identity};

use crate::config::{ClientConfig, TlsOptions};
use crate::error::{Error, Result};

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
}

/// All connection pools of a client.
#[derive(Debug)]
pub(crate) struct Pools {
    user_agent: String,
    max_idle_per_host: usize,
    made: Mutex<HashMap<Key, Pool>>,
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
            max_idle_per_host: config.max_idle_per_host,
            made: Mutex::default(),
        }
    }

    /// The pool for `https` (with these TLS settings) or plain HTTP.
    pub(crate) fn get(
        &self,
        https: bool,
        tls: &Arc<TlsOptions>,
        connect: Duration,
        purpose: Purpose,
    ) -> Result<reqwest::Client> {
        let key = Key { tls: https.then(|| (**tls).clone()), connect, purpose };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = made.get(&key) {
            return Ok(pool.client.clone());
        }
        let client = self.make(&key)?;
        made.insert(key, Pool { client: client.clone(), made: Instant::now() });
        Ok(client)
    }

    /// Forgets the idle connections of all pools for a purpose that are older than `since`, when a request begun was met by
    /// silence: a link that drops everything leaves many connections which look alive, and each would cost another wait.
    pub(crate) fn renew(&self, purpose: Purpose, since: Instant) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|key, pool| key.purpose != purpose || pool.made >= since);
    }

    fn make(&self, key: &Key) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            // Redirects are followed by hand: credentials must not travel, and the last URL is remembered.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // reqwest would retry some failures by itself, unseen by our counters and limits.
            .retry(reqwest::retry::never())
            .connect_timeout(key.connect)
            .pool_max_idle_per_host(self.max_idle_per_host)
            .pool_idle_timeout(Duration::from_secs(90))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        if key.purpose == Purpose::Blob {
            builder = builder.http1_only();
        }
        builder = match &key.tls {
            None => builder.tls_certs_only(std::iter::empty()),
            Some(tls) => {
                let mut builder = builder.tls_certs_merge(authorities(tls)?);
                if let Some(identity) = identity(tls)? {
                    builder = builder.identity(identity);
                }
                builder.tls_danger_accept_invalid_certs(tls.skip_verify)
            }
        };
        builder.build().map_err(|error| {
            let error = error.without_url();
            let cause = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
            Error::config(format!("cannot set up TLS: {error}{cause}; are CA certificates installed?"))
        })
    }
}

/// Reads and checks all files that `tls` names.
pub(crate) fn validate(tls: &TlsOptions) -> Result<()> {
    authorities(tls)?;
    identity(tls)?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::config(format!("cannot read {}: {error}", path.display())))
}

fn authorities(tls: &TlsOptions) -> Result<Vec<Certificate>> {
    let mut all = Vec::new();
    for path in &tls.ca_files {
        let certificates = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|_| Error::config(format!("{} holds no valid PEM certificates", path.display())))?;
        if certificates.is_empty() {
            return Err(Error::config(format!("{} holds no PEM certificate", path.display())));
        }
        all.extend(certificates);
    }
    Ok(all)
}

fn identity(tls: &TlsOptions) -> Result<Option<Identity>> {
    let Some(cert) = &tls.client_cert else { return Ok(None) };
    let mut pem = read(cert)?;
    if let Some(key) = &tls.client_key {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    let identity = Identity::from_pem(&pem).map_err(|_| {
        Error::config(format!("{}: no client certificate with its private key in PEM form", cert.display()))
    })?;
    Ok(Some(identity))
}
