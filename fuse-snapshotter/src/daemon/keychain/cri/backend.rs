//! The connection to containerd.
//!
//! One HTTP/2 connection serves all calls. It is made by the call that needs it, and again by the next one after it
//! broke; nobody ever waits for a socket that does not answer to `connect`, because kubelet asks again anyway and wants
//! to know.

use std::io;
use std::path::{Path, PathBuf};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::Status;
use tonic::body::Body;

/// Details of errors travel in trailers; containerd's may be long, and go's gRPC takes much more.
const MAX_HEADERS: u32 = 1 << 20;

pub(super) struct Backend {
    path: PathBuf,
    connection: Mutex<Option<SendRequest<Body>>>,
}

impl Backend {
    pub(super) fn new(path: &Path) -> Self {
        let text = path.to_str().unwrap_or_default();
        let path = text.strip_prefix("unix://").map_or_else(|| path.to_owned(), PathBuf::from);
        Self { path, connection: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Passes `request` on. Dropping the future cancels the call over there.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Status> {
        let mut request = with_origin(request)?;
        // A connection may end just when it is about to be used; what was not sent is sent over a new one.
        let mut again = true;
        loop {
            let mut connection = self.connection().await.map_err(|error| self.unreachable(&error))?;
            let mut error = match connection.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            match error.take_message() {
                Some(unsent) if again => {
                    (request, again) = (unsent, false);
                    self.forget_ended().await;
                }
                _ => return Err(self.broke_off(error.error())),
            }
        }
    }

    /// What to say when the other side ends a call halfway.
    pub(super) fn broke_off(&self, error: &dyn std::error::Error) -> Status {
        let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Status::unavailable(format!(
            "the CRI image service at {} broke off the call: {error}{cause}",
            self.path.display()
        ))
    }

    fn unreachable(&self, error: &io::Error) -> Status {
        Status::unavailable(format!(
            "the CRI image service at {} cannot be reached: {error}; is containerd running, and is \
             cri_keychain.image_service_path its socket?",
            self.path.display()
        ))
    }

    async fn connection(&self) -> io::Result<SendRequest<Body>> {
        let mut slot = self.connection.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        *slot = None;
        let stream = UnixStream::connect(&self.path).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEADERS)
            .adaptive_window(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let path = self.path.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, path = %path.display(), "connection to the CRI image service ended");
            }
        });
        *slot = Some(sender.clone());
        Ok(sender)
    }

    /// Makes the next call connect anew, unless another one has seen to it.
    async fn forget_ended(&self) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|open| open.is_closed() || !open.is_ready()) {
            *slot = None;
        }
    }
}

/// The same request, to the origin that gRPC clients name on a unix socket.
fn with_origin(request: Request<Body>) -> Result<Request<Body>, Status> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::builder()
        .scheme("http")
        .authority("localhost")
        .path_and_query(path)
        .build()
        .map_err(|_| Status::internal("the call has no path"))?;
    // Routers leave notes in them that are meaningless to the next hop.
    parts.extensions.clear();
    Ok(Request::from_parts(parts, body))
}
