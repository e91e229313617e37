//! The proxy between tonic's client and an image service of which the tests see every byte.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use registry::{Client, ClientConfig, Digest, Repository};
use testdata::registry::{Auth, TestRegistry};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Status};

use super::CriKeychain;

const PASSWORD: &str = "s3cr3t-pa55word";

/// Passes messages on as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What the image service answers.
#[derive(Clone)]
enum Reply {
    Message(Vec<u8>),
    /// With details, in trailers after headers or in the headers alone.
    Error {
        trailers_only: bool,
    },
    /// A message, and then the stream is reset.
    BreakOff,
    Never,
}

#[derive(Default)]
struct Seen {
    calls: Mutex<Vec<(String, HeaderMap, Bytes)>>,
    cancelled: Notify,
    arrived: Notify,
}

/// An image service; dropping it ends its connections.
struct Backend {
    seen: Arc<Seen>,
    reply: Arc<Mutex<Reply>>,
    task: JoinHandle<()>,
}

impl Backend {
    fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (seen, reply) = (Arc::new(Seen::default()), Arc::new(Mutex::new(Reply::Message(Vec::new()))));
        let task = tokio::spawn(accept(listener, seen.clone(), reply.clone()));
        Self { seen, reply, task }
    }

    fn replies(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn last(&self) -> (String, HeaderMap, Bytes) {
        self.seen.calls.lock().unwrap().last().unwrap().clone()
    }

    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn accept(listener: UnixListener, seen: Arc<Seen>, reply: Arc<Mutex<Reply>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (seen, reply) = (seen.clone(), reply.clone());
        let service = service_fn(move |request| answer(request, seen.clone(), reply.clone()));
        connections.spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

type Frames = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    reply: Arc<Mutex<Reply>>,
) -> Result<Response<Frames>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    seen.calls.lock().unwrap().push((path, head.headers, body));
    seen.arrived.notify_one();
    let reply = reply.lock().unwrap().clone();
    let trailers = |pairs: &[(&'static str, &'static str)]| {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect::<HeaderMap>()
    };
    let failure = trailers(&[
        ("grpc-status", "9"),
        ("grpc-message", "fa%C3%A7ade is %22gone%22"),
        ("grpc-status-details-bin", "CAkSBHh5eno"),
        ("x-trailing", "yes"),
    ]);
    let mut extra = HeaderMap::new();
    let frames = match reply {
        Reply::Message(message) => vec![
            Ok(Frame::data(framed(&message))),
            Ok(Frame::trailers(trailers(&[("grpc-status", "0"), ("x-trailing", "yes")]))),
        ],
        Reply::Error { trailers_only: false } => vec![Ok(Frame::trailers(failure))],
        Reply::Error { trailers_only: true } => {
            extra = failure;
            vec![]
        }
        Reply::BreakOff => vec![Ok(Frame::data(framed(b"half"))), Err(std::io::Error::other("gone"))],
        Reply::Never => {
            struct OnDrop(Arc<Seen>);
            impl Drop for OnDrop {
                fn drop(&mut self) {
                    self.0.cancelled.notify_one();
                }
            }
            let _guard = OnDrop(seen);
            std::future::pending().await
        }
    };
    let mut response = Response::new(StreamBody::new(stream::iter(frames).boxed()));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response.headers_mut().insert("x-head", "a".parse().unwrap());
    response.headers_mut().extend(extra);
    Ok(response)
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// A field of bytes in protobuf's encoding.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

fn pull_request(image: &str, user: &str, password: &str) -> Vec<u8> {
    let auth = [field(1, user.as_bytes()), field(2, password.as_bytes())].concat();
    [field(1, &field(1, image.as_bytes())), field(2, &auth)].concat()
}

/// A keychain that is served on a socket, and a client of it.
struct Proxy {
    keychain: CriKeychain,
    client: tonic::client::Grpc<Channel>,
    directory: tempfile::TempDir,
    server: JoinHandle<()>,
}

impl Proxy {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keychain = CriKeychain::new(format!("unix://{}", directory.path().join("backend").display()));
        let own = directory.path().join("own");
        let listener = UnixListener::bind(&own).unwrap();
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let router = Server::builder().add_service(keychain.service()).add_service(keychain.alpha_service());
        let server = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        let channel = Endpoint::from_static("http://localhost").user_agent("kubelet/1.31").unwrap();
        let channel = channel.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let own = own.clone();
            async move { UnixStream::connect(own).await.map(TokioIo::new) }
        }));
        let client = tonic::client::Grpc::new(channel).max_decoding_message_size(16 << 20);
        Self { keychain, client, directory, server }
    }

    fn backend(&self) -> Backend {
        Backend::start(&self.directory.path().join("backend"))
    }

    async fn call(
        &self,
        method: &'static str,
        request: tonic::Request<Bytes>,
    ) -> Result<tonic::Response<Bytes>, Status> {
        let mut client = self.client.clone();
        client.ready().await.unwrap();
        let path = hyper::http::uri::PathAndQuery::from_static(method);
        // Streaming, so that what comes before an error is seen too.
        let mut response = client.server_streaming(request, path, Raw).await?;
        let message = response.get_mut().message().await?.unwrap_or_default();
        let trailers = response.get_mut().trailers().await?;
        let mut answered = response.map(|_| message);
        if let Some(trailers) = trailers {
            let mut all = answered.metadata().clone().into_headers();
            all.extend(trailers.into_headers());
            *answered.metadata_mut() = tonic::metadata::MetadataMap::from_headers(all);
        }
        Ok(answered)
    }

    async fn pull(&self, image: &str, user: &str, password: &str) -> Result<(), Status> {
        let request = tonic::Request::new(pull_request(image, user, password).into());
        self.call("/runtime.v1.ImageService/PullImage", request).await.map(|_| ())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const METHODS: [&str; 7] = [
    "/runtime.v1.ImageService/ListImages",
    "/runtime.v1.ImageService/ImageStatus",
    "/runtime.v1.ImageService/PullImage",
    "/runtime.v1.ImageService/RemoveImage",
    "/runtime.v1.ImageService/ImageFsInfo",
    "/runtime.v1.ImageService/NotYetInvented",
    "/runtime.v1alpha2.ImageService/PullImage",
];

#[tokio::test]
async fn every_byte_passes() {
    let proxy = Proxy::start();
    let backend = proxy.backend();
    // Fields in an odd order, twice, and of unknown numbers; it is no valid message of most of the methods.
    let sent = [pull_request("q.io/a", "u", "p"), field(15, b"new"), field(1, b""), vec![0x78, 0x80, 0x00]];
    let sent = sent.concat();
    let answered = [field(9, b"later"), field(1, b"sha256:1"), vec![0x50, 0x81, 0x00]].concat();
    backend.replies(Reply::Message(answered.clone()));
    for method in METHODS {
        let mut request = tonic::Request::new(Bytes::from(sent.clone()));
        request.set_timeout(Duration::from_secs(100));
        request.metadata_mut().insert("x-caller", "me".parse().unwrap());
        let value = tonic::metadata::MetadataValue::from_bytes(&[0, 255, 7]);
        request.metadata_mut().insert_bin("x-caller-bin", value);
        let response = proxy.call(method, request).await.unwrap();
        assert_eq!(response.get_ref(), &answered, "{method}");
        assert_eq!(response.metadata().get("x-head").unwrap(), "a", "{method}");
        assert_eq!(response.metadata().get("x-trailing").unwrap(), "yes", "{method}");

        let (path, headers, body) = backend.last();
        assert_eq!((path.as_str(), &body), (method, &framed(&sent)));
        let expected = [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("x-caller", "me"),
            ("x-caller-bin", "AP8H"),
            ("grpc-timeout", "100000m"),
        ];
        for (name, value) in expected {
            assert_eq!(headers.get(name).unwrap(), value, "{method}");
        }
        assert!(headers["user-agent"].to_str().unwrap().starts_with("kubelet/1.31"), "{headers:?}");
        assert_eq!(headers.len(), 6, "{headers:?}");
    }
}

#[tokio::test]
async fn errors_pass_with_their_details() {
    let proxy = Proxy::start();
    let backend = proxy.backend();
    for trailers_only in [true, false] {
        backend.replies(Reply::Error { trailers_only });
        for method in METHODS {
            let error = proxy.call(method, tonic::Request::new(Bytes::new())).await.unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition, "{method}");
            assert_eq!(error.message(), "façade is \"gone\"");
            assert_eq!(error.details(), b"\x08\x09\x12\x04xyzz");
            assert_eq!(error.metadata().get("x-trailing").unwrap(), "yes");
        }
    }
}

#[tokio::test]
async fn an_absent_backend_is_said_at_once_and_may_come_back() {
    let proxy = Proxy::start();
    let unavailable = async |method| {
        let error = proxy.call(method, tonic::Request::new(Bytes::new())).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        let socket = proxy.directory.path().join("backend");
        assert!(error.message().contains(socket.to_str().unwrap()), "{error:?}");
        assert!(error.message().contains("image_service_path"), "{error:?}");
    };
    for method in METHODS {
        unavailable(method).await;
    }
    for _ in 0..3 {
        let backend = proxy.backend();
        for method in METHODS {
            proxy.call(method, tonic::Request::new(Bytes::new())).await.unwrap();
        }
        backend.stop().await;
        // The socket file is still there, but nobody listens.
        unavailable(METHODS[0]).await;
    }
}

#[tokio::test]
async fn large_messages_and_those_broken_off() {
    let proxy = Proxy::start();
    let backend = proxy.backend();
    let large = (0..15 << 20).map(|i: u32| (i >> 8) as u8).collect::<Vec<_>>();
    backend.replies(Reply::Message(large.clone()));
    for method in METHODS {
        let response = proxy.call(method, tonic::Request::new(large.clone().into())).await.unwrap();
        assert!(response.get_ref() == &large, "{method}");
        assert!(backend.last().2 == framed(&large), "{method}");
    }
    backend.replies(Reply::BreakOff);
    for method in METHODS {
        let error = proxy.call(method, tonic::Request::new(Bytes::new())).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{method} {error:?}");
    }
    backend.replies(Reply::Message(vec![0; (16 << 20) + 1]));
    let error = proxy.call(METHODS[2], tonic::Request::new(Bytes::new())).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
}

#[tokio::test]
async fn cancelling_reaches_the_backend() {
    let proxy = Proxy::start();
    let backend = proxy.backend();
    backend.replies(Reply::Never);
    for method in METHODS {
        tokio::select! {
            _ = proxy.call(method, tonic::Request::new(Bytes::new())) => panic!("answered"),
            () = backend.seen.arrived.notified() => {}
        }
        let cancelled = tokio::time::timeout(Duration::from_secs(20), backend.seen.cancelled.notified());
        assert!(cancelled.await.is_ok(), "{method}");
    }
}

async fn reads(client: &Client, registry: &TestRegistry, digest: &Digest) -> bool {
    let repository = Repository::new(&registry.host(), "team/app").unwrap();
    client.blob_exists(&repository, digest).await.is_ok_and(|there| there)
}

#[tokio::test]
async fn logins_of_pulls_open_the_registry() {
    let registry = TestRegistry::builder().auth(Auth::bearer("me", PASSWORD)).start().await;
    let digest: Digest = registry.put_blob("layer").parse().unwrap();
    let proxy = Proxy::start();
    let backend = proxy.backend();
    let client = || {
        let credentials = Arc::new(proxy.keychain.clone());
        Client::new(ClientConfig { credentials, ..ClientConfig::default() }).unwrap()
    };
    let image = format!("{}/team/app:1", registry.host());
    let long_lived = client();
    assert!(!reads(&long_lived, &registry, &digest).await);

    // Within the pull, that is when layers are prepared.
    backend.replies(Reply::Never);
    tokio::select! {
        _ = proxy.pull(&image, "me", PASSWORD) => panic!("answered"),
        () = backend.seen.arrived.notified() => {}
    }
    assert!(reads(&client(), &registry, &digest).await);

    backend.replies(Reply::Message(field(1, b"sha256:1234")));
    proxy.pull(&image, "me", PASSWORD).await.unwrap();
    assert!(reads(&client(), &registry, &digest).await);
    // The client that was turned away at first asks again.
    assert!(reads(&long_lived, &registry, &digest).await);

    // Somebody else's wrong one spoils nothing, and neither does a pull without any.
    backend.replies(Reply::Error { trailers_only: true });
    proxy.pull(&image, "me", "wrong").await.unwrap_err();
    backend.replies(Reply::Message(field(1, b"sha256:1234")));
    let anonymous = tonic::Request::new(field(1, &field(1, image.as_bytes())).into());
    proxy.call(METHODS[2], anonymous).await.unwrap();
    assert!(reads(&client(), &registry, &digest).await);
    assert!(!format!("{:?}", proxy.keychain).contains(PASSWORD));

    // Nor while it lasts: running containers go on with the token that they have.
    backend.replies(Reply::Never);
    tokio::select! {
        _ = proxy.pull(&image, "me", "wrong") => panic!("answered"),
        () = backend.seen.arrived.notified() => {}
    }
    assert!(reads(&long_lived, &registry, &digest).await);

    // Kubelet removes images by id.
    let remove = field(1, &field(1, b"sha256:1234"));
    backend.replies(Reply::Error { trailers_only: false });
    proxy.call(METHODS[3], tonic::Request::new(remove.clone().into())).await.unwrap_err();
    assert!(reads(&client(), &registry, &digest).await);
    backend.replies(Reply::Message(Vec::new()));
    proxy.call(METHODS[3], tonic::Request::new(remove.into())).await.unwrap();
    assert!(!reads(&client(), &registry, &digest).await);
    assert!(!reads(&long_lived, &registry, &digest).await, "not with the token that it has, either");
}

#[tokio::test]
async fn a_login_that_changed_is_used_when_the_old_one_is_refused() {
    let registry = TestRegistry::builder().auth(Auth::basic("me", PASSWORD)).start().await;
    let digest: Digest = registry.put_blob("layer").parse().unwrap();
    let proxy = Proxy::start();
    let _backend = proxy.backend();
    let credentials = Arc::new(proxy.keychain.clone());
    let client = Client::new(ClientConfig { credentials, ..ClientConfig::default() }).unwrap();
    let image = format!("{}/team/app:1", registry.host());
    proxy.pull(&image, "me", "old").await.unwrap();
    assert!(!reads(&client, &registry, &digest).await);
    proxy.pull(&image, "me", PASSWORD).await.unwrap();
    assert!(reads(&client, &registry, &digest).await);
}
