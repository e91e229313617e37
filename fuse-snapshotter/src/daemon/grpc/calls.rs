//! Calls under way: what a daemon that is told to end waits for. It does not wait for its clients to hang up, which takes some
//! of them seconds, and others never do.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// Time for an answer to get from the daemon's buffers to the socket.
const LINGER: Duration = Duration::from_millis(50);

/// Counts calls: a layer to be put around services.
#[derive(Debug, Clone)]
pub struct Calls {
    under_way: Arc<watch::Sender<usize>>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { under_way: Arc::new(watch::Sender::new(0)) }
    }
}

impl Calls {
    /// Waits until all calls are answered.
    pub async fn finished(&self) {
        let mut under_way = self.under_way.subscribe();
        loop {
            // The sender lives in `self`, so this cannot fail.
            let _ = under_way.wait_for(|count| *count == 0).await;
            tokio::time::sleep(LINGER).await;
            // One may have come on a connection that was open still.
            if *under_way.borrow() == 0 {
                return;
            }
        }
    }

    fn enter(&self) -> Call {
        self.under_way.send_modify(|count| *count += 1);
        Call(Arc::clone(&self.under_way))
    }
}

/// A call, until its answer was taken or given up.
struct Call(Arc<watch::Sender<usize>>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counted<S>;

    fn layer(&self, service: S) -> Counted<S> {
        Counted { service, calls: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    service: S,
    calls: Calls,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.calls.enter();
        let answering = self.service.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            // The body goes when it has been sent, and the call with it.
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_the_end = &call;
                    frame
                }))
            }))
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_is_over_when_its_answer_is_sent() {
        let calls = Calls::default();
        let under_way = || *calls.under_way.borrow();
        let (release, released) = tokio::sync::oneshot::channel();
        let mut released = Some(released);
        let mut service = calls.layer(tower::service_fn(move |_: Request<Body>| {
            let released = released.take();
            async move {
                released.unwrap().await.unwrap();
                let body = http_body_util::Full::new(bytes::Bytes::from("answer"));
                Ok::<_, std::convert::Infallible>(Response::new(Body::new(body)))
            }
        }));
        calls.finished().await;
        let call = tokio::spawn(service.call(Request::new(Body::default())));
        assert_eq!(under_way(), 1);
        release.send(()).unwrap();
        let answer = call.await.unwrap().unwrap();
        assert_eq!(under_way(), 1);
        drop(answer);
        assert_eq!(under_way(), 0);
        calls.finished().await;
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_is_over() {
        let calls = Calls::default();
        let mut service = calls.layer(tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
        }));
        let call = service.call(Request::new(Body::default()));
        assert_eq!(*calls.under_way.borrow(), 1);
        drop(call);
        calls.finished().await;
    }
}
