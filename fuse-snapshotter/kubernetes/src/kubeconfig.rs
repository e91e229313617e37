//! Finding and reading the kubeconfig, and noticing that it changed.

use std::io;
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use sha2::{Digest, Sha256};

/// A kubeconfig with the certificates of many clusters has some hundred kilobytes.
const MAX_FILE: u64 = 8 << 20;

/// The contents of all files that a connection is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

/// The files in which the kubeconfig may be; those of `KUBECONFIG` are merged.
pub(crate) fn candidates(path: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = path {
        return vec![path.to_owned()];
    }
    let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let named: Vec<_> = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
    if !named.is_empty() {
        return named;
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(|home| Path::new(&home).join(".kube/config")).into_iter().collect()
}

/// Why a kubeconfig cannot be used. None of it shows what the file holds, which are secrets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: Reason },
    /// The current context does not lead to a cluster.
    #[error("{0}")]
    Context(Reason),
    /// No client can be made of it.
    #[error("{}", describe_client(.0))]
    Client(Box<kube::Error>),
    /// The thread that makes the client has ended.
    #[error(transparent)]
    Thread(#[from] tokio::task::JoinError),
}

/// An error of the kubeconfig's reader. Messages of the YAML reader quote the file, so they are not shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("it is not the YAML of a kubeconfig")]
    Yaml,
    #[error(transparent)]
    Other(KubeconfigError),
}

impl From<KubeconfigError> for Reason {
    fn from(error: KubeconfigError) -> Self {
        match error {
            KubeconfigError::Parse(_) => Self::Yaml,
            other => Self::Other(other),
        }
    }
}

/// What is there now.
pub(crate) enum Found {
    /// No file at all.
    Missing,
    /// A file that cannot be used, and why, without what it holds.
    Broken(Problem),
    /// A usable one.
    Config(Box<Kubeconfig>),
}

/// Reads `candidates`. The fingerprint is that of the same moment, or of one just before.
pub(crate) fn read(candidates: &[PathBuf]) -> (Fingerprint, Found) {
    let mut hash = Sha256::new();
    let mut merged: Option<Kubeconfig> = None;
    let mut problem = None;
    for path in candidates {
        match add(&mut hash, path) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(source) => {
                problem.get_or_insert(Problem::Unreadable { path: path.clone(), source });
                continue;
            }
        }
        let next = Kubeconfig::read_from(path);
        match next.and_then(|next| merged.take().unwrap_or_default().merge(next)) {
            Ok(all) => merged = Some(all),
            Err(error) => {
                problem = Some(Problem::Malformed { path: path.clone(), reason: error.into() });
            }
        }
    }
    let found = match (problem, merged) {
        (Some(problem), _) => Found::Broken(problem),
        (None, None) => Found::Missing,
        (None, Some(config)) => {
            for path in referenced(&config) {
                // An error is told when the connection is made.
                let _ = add(&mut hash, Path::new(path));
            }
            Found::Config(Box::new(config))
        }
    };
    (Fingerprint(hash.finalize().into()), found)
}

/// Adds a file's content; `false` if there is no such file.
fn add(hash: &mut Sha256, path: &Path) -> io::Result<bool> {
    let content = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err(io::Error::other(format!("larger than {MAX_FILE} bytes, this is no kubeconfig")));
        }
        Ok(_) => std::fs::read(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            hash.update([0]);
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    hash.update([1]);
    hash.update(content.len().to_le_bytes());
    hash.update(content);
    Ok(true)
}

/// Certificates and keys, which are rotated without a change of the kubeconfig itself. Token files are read again by
/// the client.
fn referenced(config: &Kubeconfig) -> impl Iterator<Item = &String> {
    let clusters = config.clusters.iter().filter_map(|named| named.cluster.as_ref());
    let users = config.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    clusters
        .filter_map(|cluster| cluster.certificate_authority.as_ref())
        .chain(users.flat_map(|user| [&user.client_certificate, &user.client_key]).flatten())
}

/// A client of the current context's cluster. Nothing is sent yet, but an exec plugin is run.
pub(crate) async fn connect(config: Kubeconfig) -> Result<Client, Problem> {
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .map_err(|error| Problem::Context(error.into()))?;
    // The plugin may take its time, and is waited for without giving up the thread.
    let client = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
    client?.map_err(|error| Problem::Client(Box::new(error)))
}

/// What went wrong with a request, without what a plugin has put out.
pub(crate) fn describe_client(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        let hint = match status.code {
            401 => "; the kubeconfig's user is not accepted",
            403 => {
                "; the kubeconfig's user may not get, list and watch image pull logins in all namespaces, see the RBAC \
                 rules in the documentation"
            }
            _ => "",
        };
        return format!("the API server answered {} {}{hint}", status.code, status.reason);
    }
    let mut text = String::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        use kube::client::AuthError;
        match cause.downcast_ref::<AuthError>() {
            Some(AuthError::AuthExecStart(error)) => {
                return format!("the exec plugin does not start: {error}");
            }
            Some(AuthError::AuthExecRun { cmd, out }) => {
                return format!("the exec plugin `{cmd}` failed: {}", out.status);
            }
            Some(_) => return "the login of the kubeconfig's user cannot be had".to_owned(),
            None => {}
        }
        let message = cause.to_string();
        // Many errors repeat their source.
        if !text.contains(&message) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{message}");
        }
        next = cause.source();
    }
    text
}
