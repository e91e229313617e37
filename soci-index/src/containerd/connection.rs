//! A connection to containerd, and calls over it.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containerd_api::types;
use hyper_util::rt::TokioIo;
use registry::Descriptor;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::error::ContainerdError;

/// Where containerd listens unless the user says otherwise.
pub const DEFAULT_ADDRESS: &str = "/run/containerd/containerd.sock";

/// containerd's namespace unless the user says otherwise.
pub const DEFAULT_NAMESPACE: &str = "default";

/// How long containerd may take for what should take milliseconds. Its database waits for the disk.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to say its version.
pub(super) const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// containerd's own limit for messages.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

/// A containerd socket, and a namespace there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) socket: PathBuf,
    namespace: String,
}

impl Endpoint {
    /// The socket `address` (a path, or `unix://` and a path) and `namespace`.
    pub fn new(address: &str, namespace: &str) -> Self {
        let socket = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        Self { socket, namespace: namespace.to_owned() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Connects.
    ///
    /// # Errors
    /// At once if nobody listens, or this user may not connect; after a few seconds if whoever listens does not answer
    /// as containerd does.
    pub async fn connect(&self) -> Result<Containerd, ContainerdError> {
        let namespace = self
            .namespace
            .parse()
            .ok()
            .filter(|_| !self.namespace.is_empty())
            .ok_or_else(|| ContainerdError::Invalid(format!("invalid namespace {:?}", self.namespace)))?;
        // By hand first: the channel would hide why it failed.
        drop(dial(&self.socket).await.map_err(|source| ContainerdError::Connect {
            address: self.socket.display().to_string(),
            source,
        })?);
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { dial(&socket).await.map(TokioIo::new) }
        });
        // The name is for HTTP's host header only.
        let channel = tonic::transport::Endpoint::from_static("http://containerd")
            .connect_with_connector_lazy(connector);
        let containerd = Containerd {
            connection: Arc::new(Connection { endpoint: self.clone(), channel, namespace }),
            lease: None,
        };
        let version = containerd.version().await?;
        tracing::debug!(%self, version, "connected to containerd");
        Ok(containerd)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "containerd at {}, namespace {}", self.socket.display(), self.namespace)
    }
}

pub(super) async fn dial(socket: &std::path::Path) -> std::io::Result<UnixStream> {
    // A full backlog would be an error of its own, but whatever happens, it must not last.
    tokio::time::timeout(FIRST_ANSWER, UnixStream::connect(socket))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// A connection to containerd, in one namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Containerd {
    pub(super) connection: Arc<Connection>,
    pub(super) lease: Option<MetadataValue<Ascii>>,
}

#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    channel: Channel,
    namespace: MetadataValue<Ascii>,
}

impl Containerd {
    /// Connects to `address` (a path, or `unix://` and a path), for `namespace`.
    ///
    /// # Errors
    /// See [`Endpoint::connect`].
    pub async fn connect(address: &str, namespace: &str) -> Result<Self, ContainerdError> {
        Endpoint::new(address, namespace).connect().await
    }

    /// The socket and the namespace.
    pub fn endpoint(&self) -> &Endpoint {
        &self.connection.endpoint
    }

    pub(super) fn channel(&self) -> Channel {
        self.connection.channel.clone()
    }

    /// A request in our namespace and under our lease, if there is one.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.connection.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        request
    }
}

/// A descriptor as containerd's messages have it.
pub(super) fn message_of(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone().into_iter().collect(),
    }
}

/// Waits for an answer, at most for `limit`.
pub(super) async fn call<T>(
    operation: &str,
    limit: Option<Duration>,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ContainerdError> {
    let answer = match limit {
        None => answer.await,
        Some(limit) => tokio::time::timeout(limit, answer)
            .await
            .map_err(|_| ContainerdError::Silent { operation: operation.to_owned(), limit })?,
    };
    answer.map(Response::into_inner).map_err(|status| ContainerdError::refused(operation, &status))
}

/// `NOT_FOUND` as `None`.
pub(super) fn found<T>(result: Result<T, ContainerdError>) -> Result<Option<T>, ContainerdError> {
    match result {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}
