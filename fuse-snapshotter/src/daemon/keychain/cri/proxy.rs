//! The image service as kubelet sees it.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::http::response;
use hyper::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::keychain::CriKeychain;
use super::messages;
use super::store::Pull;

/// What kubelet takes, and with it everybody else, plus the frame's head. Only for the calls that are looked into;
/// others stream.
const MAX_MESSAGE: usize = (16 << 20) + 5;

/// A version of the image service.
pub trait Version: Send + Sync + 'static {
    /// The full name of the gRPC service.
    const NAME: &'static str;
}

/// `runtime.v1`.
#[derive(Debug, Clone, Copy)]
pub struct V1;

impl Version for V1 {
    const NAME: &'static str = "runtime.v1.ImageService";
}

/// `runtime.v1alpha2`.
#[derive(Debug, Clone, Copy)]
pub struct V1Alpha2;

impl Version for V1Alpha2 {
    const NAME: &'static str = "runtime.v1alpha2.ImageService";
}

/// A gRPC service that passes all its calls on; see [`CriKeychain::service`].
#[derive(Debug)]
pub struct ImageService<V> {
    keychain: CriKeychain,
    version: PhantomData<V>,
}

impl<V> ImageService<V> {
    pub(super) fn new(keychain: CriKeychain) -> Self {
        Self { keychain, version: PhantomData }
    }
}

impl<V> Clone for ImageService<V> {
    fn clone(&self) -> Self {
        Self::new(self.keychain.clone())
    }
}

impl<V: Version> NamedService for ImageService<V> {
    const NAME: &'static str = V::NAME;
}

impl<V: Version> Service<Request<Body>> for ImageService<V> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let keychain = self.keychain.clone();
        Box::pin(async move {
            let path = request.uri().path();
            let answered = match path.rsplit('/').next() {
                Some("PullImage") => keychain.pull(request).await,
                Some("RemoveImage") => keychain.remove(request).await,
                _ => keychain.relay(request).await,
            };
            Ok(answered.unwrap_or_else(Status::into_http))
        })
    }
}

impl CriKeychain {
    /// The service `runtime.v1.ImageService`, for `tonic::transport::Server::add_service`.
    pub fn service(&self) -> ImageService<V1> {
        ImageService::new(self.clone())
    }

    /// The service `runtime.v1alpha2.ImageService`, which containerd before 2.0 and kubelet before 1.26 know.
    pub fn alpha_service(&self) -> ImageService<V1Alpha2> {
        ImageService::new(self.clone())
    }

    /// A call of no interest.
    async fn relay(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let response = self.backend().send(request).await?;
        Ok(response.map(|body| Body::new(Relayed { body, keychain: self.clone(), broken: false })))
    }

    async fn pull(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (request, body) = collect_request(request).await?;
        let outcome = messages::login(&body).and_then(|login| {
            let image = login.reference.to_string();
            let pull = self.store().begin(login.reference, login.server, login.credential);
            match pull {
                Some(_) => tracing::debug!(image, "the registry login of the pull is used for lazy reads"),
                None => tracing::warn!(image, "the registry login of the pull is too large to keep"),
            }
            pull.map(|pull| Outcome { keychain: self, pull, image_id: None })
        });
        let answer = self.exchange(request).await?;
        if let (Some(mut outcome), true) = (outcome, answer.succeeded()) {
            outcome.image_id = Some(messages::image_id(&answer.body));
        }
        Ok(answer.into_response())
    }

    async fn remove(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (request, body) = collect_request(request).await?;
        let answer = self.exchange(request).await?;
        if let (Some(image), true) = (messages::removed(&body), answer.succeeded()) {
            self.store().removed(&image);
        }
        Ok(answer.into_response())
    }

    /// A call whose whole answer is of interest.
    async fn exchange(&self, request: Request<Body>) -> Result<Answer, Status> {
        let (head, body) = self.backend().send(request).await?.into_parts();
        let collected = Limited::new(body, MAX_MESSAGE).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large("answer")
            } else {
                self.backend().broke_off(&*error)
            }
        })?;
        let (body, trailers) = split(collected);
        Ok(Answer { head, body, trailers })
    }
}

/// Tells the store how a pull ended, also when the caller gave it up and the future is dropped.
struct Outcome<'a> {
    keychain: &'a CriKeychain,
    pull: Pull,
    image_id: Option<String>,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        let mut store = self.keychain.store();
        match &self.image_id {
            Some(id) => store.succeeded(self.pull, id),
            None => store.failed(self.pull),
        }
    }
}

/// The whole answer of a unary call.
struct Answer {
    head: response::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn succeeded(&self) -> bool {
        let status = self.trailers.as_ref().and_then(Status::from_header_map);
        status.is_some_and(|status| status.code() == Code::Ok)
    }

    fn into_response(self) -> Response<Body> {
        Response::from_parts(self.head, whole(self.body, self.trailers))
    }
}

/// The request once more, and the bytes of its body.
async fn collect_request(request: Request<Body>) -> Result<(Request<Body>, Bytes), Status> {
    let (head, body) = request.into_parts();
    let collected = Limited::new(body, MAX_MESSAGE).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large("request")
        } else {
            Status::cancelled("the request broke off")
        }
    })?;
    let (bytes, trailers) = split(collected);
    Ok((Request::from_parts(head, whole(bytes.clone(), trailers)), bytes))
}

fn too_large(what: &str) -> Status {
    Status::resource_exhausted(format!("the {what} is larger than 16 MiB"))
}

fn split(collected: Collected<Bytes>) -> (Bytes, Option<HeaderMap>) {
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

/// A body of these frames. No length is known of it, or HTTP would add a header; and an empty one is truly empty,
/// because an answer with the status in its headers must end with them.
fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Body {
    if bytes.is_empty() && trailers.is_none() {
        return Body::empty();
    }
    let data = (!bytes.is_empty()).then(|| Frame::data(bytes));
    let frames = data.into_iter().chain(trailers.map(Frame::trailers)).map(Ok::<_, Infallible>);
    Body::new(StreamBody::new(futures::stream::iter(frames)))
}

/// The backend's body as it comes. If the connection breaks, the call ends with a status that says so.
struct Relayed {
    body: Incoming,
    keychain: CriKeychain,
    broken: bool,
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.broken {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Err(error))) = polled else { return polled };
        self.broken = true;
        let mut trailers = HeaderMap::new();
        match self.keychain.backend().broke_off(&error).add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(_) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
