//! A containerd that goes away while `soci` uses it, as one that crashes on a request does.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::convert::Infallible;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use common::Soci;
use hyper_util::rt::TokioIo;
use testdata::containerd::Containerd as Server;
use testdata::docker_registry::DockerRegistry;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};
use tokio::net::{UnixListener, UnixStream};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt};

/// The full name of a gRPC service.
trait Named: Send + Sync + 'static {
    const NAME: &'static str;
}

macro_rules! services {
    ($($type:ident = $name:literal),* $(,)?) => {$(
        struct $type;
        impl Named for $type {
            const NAME: &'static str = $name;
        }
    )*};
}

services! {
    Version = "containerd.services.version.v1.Version",
    Images = "containerd.services.images.v1.Images",
    Content = "containerd.services.content.v1.Content",
    Leases = "containerd.services.leases.v1.Leases",
}

/// Passes the calls of a service on to containerd. The one that is `fatal` is told of, and never answered.
struct Relay<N> {
    containerd: Channel,
    fatal: &'static str,
    met: Sender<()>,
    name: PhantomData<N>,
}

impl<N> Clone for Relay<N> {
    fn clone(&self) -> Self {
        Self {
            containerd: self.containerd.clone(),
            fatal: self.fatal,
            met: self.met.clone(),
            name: PhantomData,
        }
    }
}

impl<N: Named> NamedService for Relay<N> {
    const NAME: &'static str = N::NAME;
}

impl<N: Named> Service<Request<Body>> for Relay<N> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let relay = self.clone();
        Box::pin(async move {
            if request.uri().path() == relay.fatal {
                relay.met.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            Ok(relay.containerd.oneshot(request).await.unwrap())
        })
    }
}

/// Listens at `socket` and relays to containerd, until something `fatal` is asked for: then `end` is done, and all connections
/// break.
fn relay(
    socket: PathBuf,
    containerd: String,
    fatal: &'static str,
    end: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (met, meeting) = channel();
        runtime.spawn(async move {
            let dial = tower::service_fn(move |_| {
                let containerd = containerd.clone();
                async move { UnixStream::connect(containerd).await.map(TokioIo::new) }
            });
            let containerd = Endpoint::from_static("http://containerd").connect_with_connector_lazy(dial);
            let listener = UnixListener::from_std(listener).unwrap();
            let connections = futures::stream::unfold(listener, |listener| async move {
                let connection = listener.accept().await.map(|(stream, _)| stream);
                Some((connection, listener))
            });
            fn of<N: Named>(containerd: &Channel, fatal: &'static str, met: &Sender<()>) -> Relay<N> {
                Relay { containerd: containerd.clone(), fatal, met: met.clone(), name: PhantomData }
            }
            tonic::transport::Server::builder()
                .add_service(of::<Version>(&containerd, fatal, &met))
                .add_service(of::<Images>(&containerd, fatal, &met))
                .add_service(of::<Content>(&containerd, fatal, &met))
                .add_service(of::<Leases>(&containerd, fatal, &met))
                .serve_with_incoming(connections)
                .await
                .unwrap();
        });
        meeting.recv().unwrap();
        end();
        runtime.shutdown_background();
    })
}

fn publish(registry: &DockerRegistry, layout: &Path) -> String {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::made("big", Texture::Text, 1, 300_000));
    ImageBuilder::new().layer(layer.finish()).build().write_layout(layout, "v1");
    registry.copy(&format!("oci:{}:v1", layout.display()), "gone:v1")
}

#[test]
fn a_containerd_that_goes_away_is_never_followed_by_success() {
    // The last two calls of `create`: everything is stored by then.
    for fatal in
        ["/containerd.services.images.v1.Images/Update", "/containerd.services.leases.v1.Leases/Delete"]
    {
        let Some(registry) = DockerRegistry::start() else { return };
        let Some(server) = Server::start() else { return };
        let directory = tempfile::tempdir().unwrap();
        let reference = publish(&registry, &directory.path().join("layout"));
        server.ok(&["content", "fetch", "--plain-http", &reference]);
        let socket = directory.path().join("relay");
        let pid = rustix::process::Pid::from_raw(server.pid().unwrap().try_into().unwrap()).unwrap();
        let end = move || rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let relay = relay(socket.clone(), server.address(), fatal, end);
        let soci = Soci::with_containerd(&socket.display().to_string());
        let said = soci.err(&["create", "--min-layer-size=0", &reference]);
        assert!(
            said.contains("containerd went away") || said.contains("cannot connect to containerd"),
            "{said}"
        );
        relay.join().unwrap();
    }
}
