//! Listeners and connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use super::auth::Tokens;
use super::builder::Builder;
use super::fault::{Action, Faults};
use super::link::Link;
use super::log::{Listener, Log, Request};
use super::redirect::Signed;
use super::reply::Reply;
use super::store::Store;
use super::{blobs, body, router};

/// How the registry is out of order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outage {
    /// It is not.
    #[default]
    None,
    /// Connections are accepted and closed at once.
    CloseAtOnce,
    /// Nobody listens: connections are refused.
    Refuse,
    /// Connections are accepted and nothing is ever said; open connections fall silent as well.
    Silent,
}

/// Everything the connections of a registry have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Builder,
    pub(super) main: SocketAddr,
    pub(super) storage: Option<SocketAddr>,
    pub(super) log: Log,
    pub(super) faults: Faults,
    pub(super) link: Link,
    pub(super) tokens: Tokens,
    pub(super) signed: Signed,
    pub(super) latency: Mutex<Duration>,
    store: Mutex<Store>,
}

impl Shared {
    /// Time before the first byte of each response.
    pub(super) fn latency(&self) -> Duration {
        *self.latency.lock().unwrap()
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }
}

/// A listening socket that can be taken away at once, from any thread.
type Slot = Arc<Mutex<Option<TcpListener>>>;

/// The running listeners.
#[derive(Debug)]
pub(super) struct Servers {
    handle: Handle,
    runtime: Option<Runtime>,
    slots: Vec<(Slot, SocketAddr)>,
    outage: watch::Sender<Outage>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Servers {
    /// Binds the listeners and starts to serve them. Nothing here waits, so it works inside and outside a runtime.
    pub(super) fn start(config: Builder, handle: Handle, runtime: Option<Runtime>) -> (Arc<Shared>, Self) {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let main = bind(&handle, any);
        let storage = config.redirect.as_ref().filter(|r| r.other_host).map(|_| bind(&handle, any));
        let shared = Arc::new(Shared {
            link: Link::new(config.bandwidth),
            latency: Mutex::new(config.latency),
            config,
            main: main.1,
            storage: storage.as_ref().map(|s| s.1),
            log: Log::default(),
            faults: Faults::default(),
            tokens: Tokens::default(),
            signed: Signed::default(),
            store: Mutex::default(),
        });
        let outage = watch::Sender::new(Outage::None);
        let mut servers = Self { handle, runtime, slots: Vec::new(), outage, tasks: Vec::new() };
        for (listener, bound) in [(Listener::Main, Some(main)), (Listener::Redirect, storage)] {
            let Some((socket, addr)) = bound else { continue };
            let slot: Slot = Arc::new(Mutex::new(Some(socket)));
            let accept = accept(Arc::clone(&shared), listener, Arc::clone(&slot), servers.outage.subscribe());
            servers.tasks.push(servers.handle.spawn(accept));
            servers.slots.push((slot, addr));
        }
        (shared, servers)
    }

    pub(super) fn set_outage(&self, outage: Outage) {
        for (slot, addr) in &self.slots {
            let mut slot = slot.lock().unwrap();
            match outage {
                // Closing the socket here rather than in the accepting task makes the refusal immediate.
                Outage::Refuse => drop(slot.take()),
                _ if slot.is_none() => *slot = Some(bind(&self.handle, *addr).0),
                _ => {}
            }
        }
        self.outage.send_replace(outage);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Connections end when the sender of outages is gone.
        for (slot, _) in &self.slots {
            slot.lock().unwrap().take();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn bind(handle: &Handle, addr: SocketAddr) -> (TcpListener, SocketAddr) {
    let _guard = handle.enter();
    // Not tokio's bind, which is asynchronous. std sets SO_REUSEADDR, so that the same port can be had again.
    let socket = std::net::TcpListener::bind(addr).expect("bind 127.0.0.1");
    socket.set_nonblocking(true).expect("non-blocking socket");
    let addr = socket.local_addr().expect("local address");
    (TcpListener::from_std(socket).expect("listener"), addr)
}

async fn accept(shared: Arc<Shared>, listener: Listener, slot: Slot, mut outage: watch::Receiver<Outage>) {
    loop {
        let next = std::future::poll_fn(|cx| match slot.lock().unwrap().as_ref() {
            Some(socket) => socket.poll_accept(cx),
            None => Poll::Pending,
        });
        let stream = tokio::select! {
            accepted = next => accepted,
            changed = outage.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((stream, _)) = stream else { continue };
        let state = *outage.borrow();
        if state == Outage::CloseAtOnce {
            continue;
        }
        tokio::spawn(connection(Arc::clone(&shared), listener, stream, outage.clone()));
    }
}

/// What a response body can do to its connection.
#[derive(Debug, Default)]
pub(super) struct Cut(AtomicBool);

impl Cut {
    /// Closes the connection as soon as all bytes handed over so far have been written.
    pub(super) fn when_flushed(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn connection(
    shared: Arc<Shared>,
    listener: Listener,
    stream: TcpStream,
    mut outage: watch::Receiver<Outage>,
) {
    let (number, connected) = (shared.log.connected(), Instant::now());
    // Small answers must not wait for an acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let cut = Arc::new(Cut::default());
    let io = CuttableIo { inner: TokioIo::new(stream), cut: Arc::clone(&cut) };
    let serve = async {
        if !shared.config.connect_latency.is_zero() {
            tokio::time::sleep(shared.config.connect_latency).await;
        }
        let service = service_fn(|request| {
            let (shared, cut) = (Arc::clone(&shared), Arc::clone(&cut));
            async move { exchange(&shared, (listener, number, connected), &cut, request).await }
        });
        // An error here is a client that went away or a fault that was asked for.
        let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service).await;
    };
    tokio::pin!(serve);
    loop {
        let state = *outage.borrow_and_update();
        match state {
            Outage::None => tokio::select! {
                () = &mut serve => return,
                changed = outage.changed() => if changed.is_err() { return },
            },
            Outage::Silent => {
                if outage.changed().await.is_err() {
                    return;
                }
            }
            Outage::CloseAtOnce | Outage::Refuse => return,
        }
    }
}

/// One request and its answer.
async fn exchange(
    shared: &Arc<Shared>,
    connection: (Listener, u64, Instant),
    cut: &Arc<Cut>,
    request: hyper::Request<Incoming>,
) -> io::Result<Response<UnsyncBoxBody<Bytes, io::Error>>> {
    let (parts, incoming) = request.into_parts();
    let listener = connection.0;
    let record = record(&parts, connection);
    let entry = shared.log.begin(record.clone());
    let early = shared.faults.take_early(&record);
    let mut reply = match early {
        Some(Action::DropConnection) => {
            tokio::time::sleep(shared.latency()).await;
            return Err(io::Error::other("connection dropped by a fault"));
        }
        Some(Action::Status(status, headers, body)) => {
            let mut reply = Reply::new(status).body("text/plain", body);
            headers.iter().for_each(|(name, value)| reply.set(name, value));
            reply
        }
        Some(Action::Redirect(url)) => Reply::new(307).header("location", &url),
        other => {
            if let Some(Action::Stall(time)) = other {
                tokio::time::sleep(time).await;
            }
            router::answer(shared, listener, &parts, incoming).await
        }
    };
    // HEAD has a length and no body for a fault to act on.
    let length = if parts.method == Method::HEAD { 0 } else { reply.body.len() };
    let late = shared.faults.take_late(&record, reply.status, length);
    if let Some(action) = &late {
        blobs::spoil(&mut reply, action);
    }
    let latency = shared.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    entry.set_status(reply.status);
    let mut response = Response::builder().status(reply.status).body(()).map_err(io::Error::other)?;
    *response.headers_mut() = std::mem::take(&mut reply.headers);
    if reply.status != 204 && reply.status != 304 {
        response.headers_mut().insert(hyper::header::CONTENT_LENGTH, reply.body.len().into());
    }
    let body = if parts.method == Method::HEAD {
        entry.end();
        body::empty()
    } else {
        body::shaped(Arc::clone(shared), entry, Arc::clone(cut), reply.body, late.as_ref())
    };
    Ok(response.map(|()| body))
}

fn record(parts: &Parts, (listener, connection, connected): (Listener, u64, Instant)) -> Request {
    let text = |v: &hyper::header::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let range = parts.headers.get("range").and_then(|v| blobs::parse_range(&text(v)));
    Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        range: range.and_then(|r| match r {
            blobs::ByteRange::From(a) => Some((a, u64::MAX)),
            blobs::ByteRange::Within(a, b) => Some((a, b)),
            blobs::ByteRange::Last(_) => None,
        }),
        status: 0,
        body_bytes_sent: 0,
        had_authorization: parts.headers.contains_key("authorization"),
        listener,
        connection,
        connected,
        time: Instant::now(),
        ended: None,
        headers: parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect(),
    }
}

/// A socket that fails once it has been flushed after [`Cut::when_flushed`].
///
/// Ending a response body with an error would make hyper throw away what it has buffered; this way a short body has
/// exactly as many bytes as the fault says.
struct CuttableIo {
    inner: TokioIo<TcpStream>,
    cut: Arc<Cut>,
}

impl Read for CuttableIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for CuttableIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_ready() && self.cut.0.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::Error::other("connection cut by a fault")));
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}
