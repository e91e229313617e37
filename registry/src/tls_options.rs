//! Certificates that a client trusts and shows.

use std::path::PathBuf;

/// TLS settings. The system's certificates are always trusted too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsOptions {
    /// PEM files with further certificate authorities.
    pub ca_files: Vec<PathBuf>,
    /// PEM file with the client's certificate chain; may hold the key too.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the client's private key.
    pub client_key: Option<PathBuf>,
    /// Accept any certificate. Only for trying things out: credentials are sent to whoever answers.
    pub skip_verify: bool,
}

impl TlsOptions {
    /// Whether these settings only make sense with TLS.
    pub(crate) fn wants_tls(&self) -> bool {
        !self.ca_files.is_empty() || self.client_cert.is_some()
    }

    /// These settings, with what they leave open taken from `base`.
    pub(crate) fn over(&self, base: &Self) -> Self {
        let mut ca_files = self.ca_files.clone();
        ca_files.extend(base.ca_files.iter().cloned());
        let (client_cert, client_key) = if self.client_cert.is_some() {
            (self.client_cert.clone(), self.client_key.clone())
        } else {
            (base.client_cert.clone(), base.client_key.clone())
        };
        Self { ca_files, client_cert, client_key, skip_verify: self.skip_verify || base.skip_verify }
    }
}
