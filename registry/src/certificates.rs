//! TLS settings in the form that the TLS library takes: which certificates to trust, and which to show.
//!
//! The system's certificates take milliseconds to read and megabytes to keep, and a session can only be resumed with the
//! settings that it began with. So these are made once, and all pools that use them share them.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::error::{Error, Result};
use crate::tls_options::TlsOptions;

/// What is shown to a server that asks who we are.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The settings for clients. Protocols over TLS are left open.
///
/// # Errors
/// [`Error::Config`] if a file that `tls` names cannot be used, or the system has no certificates.
pub(crate) fn client_config(tls: &TlsOptions) -> Result<ClientConfig> {
    let failed = |error: rustls::Error| {
        Error::config(format!("cannot set up TLS: {error}; are CA certificates installed?"))
    };
    // Another part of the process may have chosen one.
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let (authorities, identity) = (authorities(tls)?, identity(tls)?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?.dangerous();
    let builder = if tls.skip_verify {
        builder.with_custom_certificate_verifier(Arc::new(Anyone))
    } else {
        let verifier = Verifier::new_with_extra_roots(authorities, provider).map_err(failed)?;
        builder.with_custom_certificate_verifier(Arc::new(verifier))
    };
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            Error::config(format!("the client certificate cannot be used with its private key: {error}"))
        }),
    }
}

/// Reads and checks all files that `tls` names.
///
/// # Errors
/// [`Error::Config`] if one cannot be used.
pub(crate) fn validate(tls: &TlsOptions) -> Result<()> {
    authorities(tls)?;
    identity(tls)?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::config(format!("cannot read {}: {error}", path.display())))
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<_, _>>().ok()
}

fn authorities(tls: &TlsOptions) -> Result<Vec<CertificateDer<'static>>> {
    let mut all = Vec::new();
    for path in &tls.ca_files {
        let found = certificates(&read(path)?)
            .ok_or_else(|| Error::config(format!("{} holds no valid PEM certificates", path.display())))?;
        if found.is_empty() {
            return Err(Error::config(format!("{} holds no PEM certificate", path.display())));
        }
        all.extend(found);
    }
    Ok(all)
}

fn identity(tls: &TlsOptions) -> Result<Option<Identity>> {
    let Some(cert) = &tls.client_cert else { return Ok(None) };
    let pem = read(cert)?;
    let chain = certificates(&pem).filter(|chain| !chain.is_empty());
    let key = match &tls.client_key {
        Some(key) => PrivateKeyDer::from_pem_slice(&read(key)?).ok(),
        None => PrivateKeyDer::from_pem_slice(&pem).ok(),
    };
    let both = chain.zip(key).ok_or_else(|| {
        Error::config(format!("{}: no client certificate with its private key in PEM form", cert.display()))
    })?;
    Ok(Some(both))
}

/// Whoever answers is believed, because the user said so ([`TlsOptions::skip_verify`]).
#[derive(Debug)]
struct Anyone;

/// What is offered then: whatever a server may sign with, for nobody looks at it.
const ANY_SCHEME: [SignatureScheme; 13] = [
    SignatureScheme::ED25519,
    SignatureScheme::ED448,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ECDSA_SHA1_Legacy,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA1,
];

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ANY_SCHEME.to_vec()
    }
}
