//! The one error type of this crate.
//!
//! Every variant is something that a caller can act on. Messages name the operation, the host and the
//! repository, and say what to do next; they never contain credentials, tokens or the query of a URL.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::redact;

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was being done, and where: the subject of every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The operation with its object, for example ``get manifest `latest` ``.
    pub operation: String,
    /// `host[:port]` of the registry or mirror that was asked.
    pub host: String,
    /// The repository; empty for what concerns the whole registry.
    pub repository: String,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.host)?;
        if !self.repository.is_empty() {
            write!(f, "/{}", self.repository)?;
        }
        Ok(())
    }
}

/// What went wrong with a registry, a blob, a reference or the configuration.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image reference that cannot be parsed.
    #[error("`{input}` is not an image reference: {reason}")]
    InvalidReference {
        /// The text as given.
        input: String,
        /// What is wrong with it and what it should look like.
        reason: String,
    },
    /// A digest that is not `sha256:` and 64 lower-case hex digits.
    #[error("`{input}` is not a digest: expected `sha256:` and 64 lower-case hex digits")]
    InvalidDigest {
        /// The text as given, shortened.
        input: String,
    },
    /// The client's configuration is wrong: a `hosts.toml`, a certificate, an option.
    #[error("{message}")]
    Config {
        /// What is wrong, with the file and line where there is one.
        message: String,
    },
    /// Credentials are configured but could not be read.
    #[error("login for {host}: {reason}")]
    Credentials {
        /// The registry they are for.
        host: String,
        /// What failed and what to do.
        reason: String,
    },
    /// The registry does not have it (404).
    #[error("{context}: not found{}; check the name, and that you may see it (`docker login {}`)", quoted(.detail), .context.host)]
    NotFound {
        /// What was being done.
        context: Context,
        /// The registry's own words, bounded, maybe empty.
        detail: String,
        /// The registry itself says that it does not know the blob or the repository. A mirror, storage behind a
        /// redirect, and the page of an ingress in front of a registry that is being restarted cannot know.
        gone: bool,
    },
    /// The registry wants (other) credentials (401).
    #[error("{context}: login missing or refused{}; run `docker login {}`", quoted(.detail), .context.host)]
    Unauthorized {
        /// What was being done.
        context: Context,
        /// The registry's own words, bounded, maybe empty.
        detail: String,
    },
    /// The credentials are known but do not suffice (403).
    #[error("{context}: access denied{}; check that the account may do this, or run `docker login {}` again", quoted(.detail), .context.host)]
    Denied {
        /// What was being done.
        context: Context,
        /// The registry's own words, bounded, maybe empty.
        detail: String,
    },
    /// The registry limits the rate of requests (429).
    #[error("{context}: too many requests{}; wait, or log in for a higher limit", quoted(.detail))]
    RateLimited {
        /// What was being done.
        context: Context,
        /// The registry's own words, bounded, maybe empty.
        detail: String,
        /// How long the registry asked to wait.
        retry_after: Option<Duration>,
    },
    /// The registry failed (408 or 5xx) also after retries.
    #[error("{context}: the registry failed with status {status}{}; try again later", quoted(.detail))]
    Server {
        /// What was being done.
        context: Context,
        /// HTTP status code.
        status: u16,
        /// The registry's own words, bounded, maybe empty.
        detail: String,
        /// How long the registry asked to wait.
        retry_after: Option<Duration>,
    },
    /// The registry refused the request with another status.
    #[error("{context}: refused with status {status}{}", quoted(.detail))]
    Status {
        /// What was being done.
        context: Context,
        /// HTTP status code.
        status: u16,
        /// The registry's own words, bounded, maybe empty.
        detail: String,
    },
    /// Content does not have the digest it should have.
    #[error(
        "{context}: content has digest {actual}, expected {expected}; it is damaged or forged, nothing of it was used"
    )]
    DigestMismatch {
        /// What was being done.
        context: Context,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Content is larger than the caller or this client allows.
    #[error("{context}: larger than the limit of {limit} bytes{}", size.map(|s| format!(" ({s} bytes)")).unwrap_or_default())]
    TooLarge {
        /// What was being done.
        context: Context,
        /// The limit in bytes.
        limit: u64,
        /// The size in bytes, where it is known.
        size: Option<u64>,
    },
    /// The range asked for lies outside the content (416, or known beforehand).
    #[error(
        "{context}: bytes {start}..{end} are outside the content of {size} bytes; the size in the manifest may be wrong"
    )]
    RangeNotSatisfiable {
        /// What was being done.
        context: Context,
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
        /// Size in bytes that the content should have.
        size: u64,
    },
    /// The server sends the whole content when asked for a range, and skipping to the range was not allowed.
    #[error("{context}: the server ignores range requests; fetch the whole blob instead")]
    RangeIgnored {
        /// What was being done.
        context: Context,
    },
    /// The server's answer breaks the distribution specification or HTTP.
    #[error("{context}: {reason}")]
    Protocol {
        /// What was being done.
        context: Context,
        /// What is wrong with the answer.
        reason: String,
    },
    /// No connection, or it broke, also after retries.
    #[error("{context}: {reason}; check the network, the name of the host and proxies")]
    Transport {
        /// What was being done.
        context: Context,
        /// The chain of causes.
        reason: String,
    },
    /// No answer in time, also after retries.
    #[error("{context}: {waited_for} took longer than {} s", limit.as_secs_f32())]
    Timeout {
        /// What was being done.
        context: Context,
        /// What did not come.
        waited_for: &'static str,
        /// The limit that passed.
        limit: Duration,
    },
    /// The server's certificate is not trusted, or TLS failed otherwise.
    #[error("{context}: TLS: {reason}")]
    Tls {
        /// What was being done.
        context: Context,
        /// The chain of causes, and what to do.
        reason: String,
    },
    /// A local file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<std::io::Error>,
    },
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" (\"{text}\")") }
}

impl Error {
    /// Whether the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether other credentials or rights might help.
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Denied { .. } | Self::Credentials { .. })
    }

    /// Whether the same request may succeed later: what this client retries by itself, within bounds.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. } | Self::Server { .. } | Self::Transport { .. } | Self::Timeout { .. }
        )
    }

    /// Whether asking again for the blob that is missing would be in vain: the registry itself does not have it, or
    /// what fails is on this machine. Anything else may pass: an ingress answers with pages of its own while the
    /// registry behind it is replaced, a login expires and is renewed, a captive portal lets go.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::NotFound { gone: true, .. }
                | Self::InvalidReference { .. }
                | Self::InvalidDigest { .. }
                | Self::Io { .. }
        )
    }

    /// Whether nothing was heard of the server, or no more.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Transport { .. } | Self::Timeout { .. })
    }

    /// How long the server asked to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn invalid_digest(input: &str) -> Self {
        Self::InvalidDigest { input: redact::message(input) }
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::Config { message: message.into() }
    }

    pub(crate) fn credentials(host: &str, reason: impl Into<String>) -> Self {
        Self::Credentials { host: host.to_owned(), reason: reason.into() }
    }

    pub(crate) fn protocol(context: &Context, reason: impl Into<String>) -> Self {
        Self::Protocol { context: context.clone(), reason: reason.into() }
    }

    /// An error of a local file.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source: Arc::new(source) }
    }

    /// An error of reqwest, without the URL (its query may be a secret) and with its causes, which reqwest's own
    /// text leaves out.
    pub(crate) fn transport(context: &Context, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let reason = redact::message(&causes(&error));
        let context = context.clone();
        match tls_hint(&error) {
            Some(hint) => Self::Tls { context, reason: format!("{reason}; {hint}") },
            None => Self::Transport { context, reason },
        }
    }
}

/// The messages of `error` and its causes, repeated ones left out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// What to do about it, if TLS itself refused and would refuse again.
fn tls_hint(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, Error as Tls};
    if let Some(tls) = error.downcast_ref::<Tls>() {
        return match tls {
            Tls::AlertReceived(Alert::InternalError | Alert::UserCanceled | Alert::CloseNotify) => None,
            Tls::AlertReceived(_) => {
                Some("the server refuses; it may want a client certificate (`client = …` in hosts.toml)")
            }
            Tls::General(_) => None,
            Tls::InvalidMessage(_) => {
                Some("the server may speak plain HTTP only (`server = \"http://…\"` in hosts.toml)")
            }
            _ => Some("add the registry's CA to hosts.toml (`ca = …`) or to the system's certificates"),
        };
    }
    // `io::Error::source` skips the error it wraps, so look inside by hand; it may wrap another of its kind.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let inner = inner.and_then(|inner| tls_hint(inner));
    inner.or_else(|| error.source().and_then(tls_hint))
}
