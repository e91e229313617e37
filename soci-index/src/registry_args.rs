//! Command-line flags about registries, the same for every program of the project.

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use registry::{
    Client, ClientConfig, Credential, CredentialChain, CredentialProvider, DockerConfig, StaticCredentials,
};

/// Why the flags give no client.
#[derive(Debug, thiserror::Error)]
pub enum RegistryArgsError {
    /// Two passwords.
    #[error("--user has a password and --password-stdin asks for one: give one of them")]
    TwoPasswords,
    /// No password.
    #[error("--user {0} has no password: write --user {0}:PASSWORD, or add --password-stdin")]
    NoPassword(String),
    /// Standard input failed.
    #[error("cannot read the password from standard input: {0}")]
    Stdin(#[source] std::io::Error),
    /// The client cannot be made, because of a malformed `hosts.toml`, for example.
    #[error(transparent)]
    Client(#[from] registry::Error),
}

/// How to reach a registry.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// User name and password for the registry [default: what `docker login` or `podman login` stored]
    #[arg(long, short, value_name = "USER[:PASSWORD]", conflicts_with = "refresh")]
    pub user: Option<String>,
    /// Read the password for --user from standard input, so that it is in no process list
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
    /// OAuth2 refresh token for the registry
    #[arg(long, value_name = "TOKEN")]
    pub refresh: Option<String>,
    /// Use plain HTTP (loopback hosts get it anyway)
    #[arg(long)]
    pub plain_http: bool,
    /// Accept any TLS certificate
    #[arg(long, short = 'k')]
    pub skip_verify: bool,
    /// Directory with containerd's hosts.toml files, for mirrors, certificates and plain HTTP; several
    /// are divided by colons or commas
    #[arg(long, value_name = "DIR", default_value = "/etc/containerd/certs.d")]
    pub hosts_dir: PathBuf,
    /// File with a certificate authority to trust
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// File with a client certificate
    #[arg(long, value_name = "FILE", requires = "tlskey")]
    pub tlscert: Option<PathBuf>,
    /// File with the client certificate's key
    #[arg(long, value_name = "FILE", requires = "tlscert")]
    pub tlskey: Option<PathBuf>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub http_dump: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub http_trace: bool,
}

/// nerdctl divides directories by commas, containerd's configuration by colons.
fn search_path(directories: &Path) -> PathBuf {
    let bytes = directories.as_os_str().as_encoded_bytes();
    let parts: Vec<&OsStr> = bytes.split(|&byte| byte == b',').map(OsStr::from_bytes).collect();
    PathBuf::from(parts.join(OsStr::new(":")))
}

impl RegistryArgs {
    /// A client for the registry `host` with these settings, which calls itself `user_agent`.
    ///
    /// # Errors
    /// See [`RegistryArgsError`].
    pub fn client(&self, host: &str, user_agent: &str) -> Result<Client, RegistryArgsError> {
        Ok(Client::new(self.client_config(host, user_agent)?)?)
    }

    /// The configuration of that client.
    ///
    /// # Errors
    /// See [`RegistryArgsError`].
    pub fn client_config(&self, host: &str, user_agent: &str) -> Result<ClientConfig, RegistryArgsError> {
        if self.http_dump || self.http_trace {
            tracing::debug!("--http-dump and --http-trace do nothing; log at level debug to see requests");
        }
        let mut sources: Vec<Arc<dyn CredentialProvider>> = Vec::new();
        if let Some(credential) = self.given_credential()? {
            // Only for the registry that the user named: mirrors of it may belong to somebody else.
            sources.push(Arc::new(StaticCredentials::for_host(host, credential)));
        }
        sources.push(Arc::new(DockerConfig::from_env()));
        let mut config = ClientConfig {
            user_agent: user_agent.to_owned(),
            hosts_dir: Some(search_path(&self.hosts_dir)),
            plain_http: self.plain_http,
            credentials: Arc::new(CredentialChain::new(sources)),
            ..ClientConfig::default()
        };
        config.tls.ca_files.extend(self.tlscacert.clone());
        config.tls.client_cert.clone_from(&self.tlscert);
        config.tls.client_key.clone_from(&self.tlskey);
        config.tls.skip_verify = self.skip_verify;
        Ok(config)
    }

    fn given_credential(&self) -> Result<Option<Credential>, RegistryArgsError> {
        if let Some(token) = &self.refresh {
            return Ok(Some(Credential::IdentityToken(token.clone())));
        }
        let Some(user) = &self.user else { return Ok(None) };
        let (name, password) = match user.split_once(':') {
            Some(_) if self.password_stdin => return Err(RegistryArgsError::TwoPasswords),
            Some((name, password)) => (name, password.to_owned()),
            None if self.password_stdin => {
                let mut line = String::new();
                std::io::stdin().lock().read_line(&mut line).map_err(RegistryArgsError::Stdin)?;
                (user.as_str(), line.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => return Err(RegistryArgsError::NoPassword(user.clone())),
        };
        Ok(Some(Credential::password(name, password)))
    }
}
