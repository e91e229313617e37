//! A client of OCI registries: the [distribution specification](https://github.com/opencontainers/distribution-spec),
//! with what lazy loading needs most, fast and dependable *ranged* reads of blobs.
//!
//! | to… | use |
//! |---|---|
//! | set up | [`ClientConfig`] → [`Client::new`]; `hosts.toml` mirrors and certificates, retries, timeouts |
//! | name things | [`Reference`] (as users write them), [`Repository`], [`Digest`], [`Descriptor`] |
//! | read manifests | [`Client::manifest`], [`Client::manifest_in`], [`Client::head_manifest`], [`Client::manifest_exists`] |
//! | read parts of a blob | [`Client::blob_reader`] → [`RegistryBlob`], a [`BlobReader`] like [`FileBlob`] |
//! | read whole blobs, verified | [`Client::blob_bytes`], [`Client::blob_stream`], [`Client::blob_exists`] |
//! | find and publish referrers | [`Client::referrers`], [`Client::push_referrer`] |
//! | upload | [`Client::push_blob`], [`Client::push_manifest`] |
//! | log in | a [`CredentialProvider`]: [`DockerConfig`], [`StaticCredentials`], [`CredentialChain`] |
//! | know what it cost | [`Client::stats`], [`RegistryBlob::stats`] |
//!
//! Everything that fails is an [`enum@Error`] that says what was done, where, and what to do next, and never holds
//! a credential or the query of a URL.
//!
//! # Rules that hold everywhere
//!
//! - Credentials go to the server that asked for them and to the token server that it names, nowhere else; redirects
//!   are followed by hand for that reason. From HTTPS to plain HTTP they are not followed.
//! - Content is verified against its digest, and sizes are checked against a limit before memory is set aside. Only
//!   ranges cannot be verified here; their reader has to.
//! - Transient failures are tried again with growing waits ([`RetryPolicy`]); bodies that break off are continued.
//! - Mirrors are asked for all content, in order, before the registry itself; never with its credentials.
//!
//! # Example
//!
//! ```no_run
//! use std::sync::Arc;
//! use futures::TryStreamExt;
//! use registry::{BlobReader, Client, ClientConfig, Digest, DockerConfig, Reference};
//!
//! # async fn example() -> registry::Result<()> {
//! let client = Client::new(ClientConfig {
//!     hosts_dir: Some("/etc/containerd/certs.d".into()),
//!     credentials: Arc::new(DockerConfig::from_env()),
//!     ..ClientConfig::default()
//! })?;
//! let image: Reference = "redis:7".parse()?;
//! let manifest = client.manifest(&image).await?;
//! tracing::info!(digest = %manifest.digest, "found");
//!
//! let digest: Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
//! let layer = client.blob_reader(image.repository(), digest, 1 << 20);
//! let mut bytes = layer.read_range(4096..8192).await?;
//! while let Some(piece) = bytes.try_next().await? {
//!     tracing::info!(len = piece.len(), "a piece of the range");
//! }
//! # Ok(())
//! # }
//! ```

pub mod media_types;
pub mod redact;

mod auth;
mod blob;
mod body;
mod certificates;
mod client;
mod config;
mod connections;
mod credentials;
mod descriptor;
mod digest;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hosts;
mod manifests;
mod pace;
mod proxy;
mod reference;
mod referrers;
mod retry;
mod stats;
mod tls;
mod tls_options;
mod transport;

pub use blob::{BlobReader, FileBlob, RegistryBlob};
pub use body::ByteStream;
pub use client::Client;
pub use config::{ClientConfig, Timeouts};
pub use credentials::{
    Anonymous, Credential, CredentialChain, CredentialProvider, DockerAuths, DockerConfig, StaticCredentials,
    same_registry,
};
pub use descriptor::{Descriptor, Platform};
pub use digest::{Digest, DigestHasher};
pub use error::{Context, Error, Result};
pub use hosts::{Capabilities, HostConfig, ServerConfig};
pub use manifests::{MAX_MANIFEST_SIZE, Manifest, PushedManifest};
pub use reference::{Reference, Repository, TagOrDigest};
pub use retry::{Backoff, RetryPolicy};
pub use stats::Stats;
pub use tls_options::TlsOptions;
