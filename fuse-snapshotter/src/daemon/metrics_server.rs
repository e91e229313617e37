//! `/metrics` over HTTP, on a TCP address or a unix socket.
//!
//! A handful of scrapers is all that is expected. Connections are few, short, and serve one request each, so that
//! nobody can occupy the daemon through this door.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::base::metrics::Metrics;
use crate::daemon::config::MetricsEndpoint;
use crate::daemon::config::sockets::try_connect;

/// Requests that are answered at the same time.
pub(super) const CONNECTIONS: usize = 16;

/// Time for a request and its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// Pause after a connection could not be accepted, mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A listening server. It answers while [`Self::run`] runs.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Server {
    /// Listens. A socket that a dead process left behind is replaced.
    ///
    /// # Errors
    /// The system's, if it cannot listen there; another process may do so already.
    pub async fn bind(endpoint: &MetricsEndpoint) -> io::Result<Self> {
        let listener = match endpoint {
            MetricsEndpoint::Tcp(address) => Listener::Tcp(bind_tcp(address).await?),
            MetricsEndpoint::Unix(path) => {
                remove_dead_socket(path)?;
                Listener::Unix(UnixListener::bind(path)?)
            }
        };
        Ok(Self { listener })
    }

    /// The address, if it is TCP.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Answers until it is dropped, and all connections with it.
    pub async fn run(self, metrics: Arc<Metrics>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Never closed, so never refused.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            let stream = match self.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let metrics = Arc::clone(&metrics);
            connections.spawn(async move {
                // Nobody but the scraper cares whether it got its answer, and it knows.
                let _ = tokio::time::timeout(TIMEOUT, serve(stream, &metrics)).await;
                drop(permit);
            });
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.listener {
            Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
            Listener::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

async fn serve(stream: Box<dyn Stream>, metrics: &Arc<Metrics>) -> hyper::Result<()> {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, metrics).await) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer<B>(request: &Request<B>, metrics: &Arc<Metrics>) -> Response<Full<Bytes>> {
    let (status, text) = if request.uri().path() != "/metrics" {
        (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned())
    } else if matches!(*request.method(), Method::GET | Method::HEAD) {
        let metrics = Arc::clone(metrics);
        match tokio::task::spawn_blocking(move || metrics.render()).await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned())
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Without a host it is all addresses, as Go has it.
async fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(':') else { return TcpListener::bind(address).await };
    match TcpListener::bind(format!("[::]:{port}")).await {
        Ok(listener) => Ok(listener),
        // A machine without IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(format!("0.0.0.0:{port}")).await
        }
        Err(error) => Err(error),
    }
}

/// Only a socket, and only if nobody listens on it.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && try_connect(path) == Err(Errno::CONNREFUSED) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
