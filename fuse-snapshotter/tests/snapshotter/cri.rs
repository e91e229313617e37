//! Kubernetes' way to pull: `runtime.v1.ImageService` of containerd.

use containerd_api::cri::{ImageSpec, PullImageRequest, PullImageResponse, RemoveImageRequest};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};

/// The namespace of everything that comes by CRI.
pub(crate) const NAMESPACE: &str = "k8s.io";

/// Pulls an image; returns its id.
pub(crate) fn pull(socket: &str, reference: &str) -> Result<String, String> {
    let request = PullImageRequest { image: Some(image(reference)), ..PullImageRequest::default() };
    let answer: PullImageResponse = call(socket, "PullImage", request)?;
    Ok(answer.image_ref)
}

/// Removes an image.
pub(crate) fn remove(socket: &str, reference: &str) -> Result<(), String> {
    call::<_, ()>(socket, "RemoveImage", RemoveImageRequest { image: Some(image(reference)) })
}

fn image(reference: &str) -> ImageSpec {
    ImageSpec { image: reference.to_owned() }
}

fn call<Q, A>(socket: &str, method: &str, request: Q) -> Result<A, String>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = tonic::client::Grpc::new(connect(socket.to_owned()).await);
        client.ready().await.map_err(|error| error.to_string())?;
        let path: PathAndQuery = format!("/runtime.v1.ImageService/{method}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let answer = client.unary(tonic::Request::new(request), path, codec).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| format!("{:?}: {}", status.code(), status.message()))
    })
}

/// Connects to a socket.
pub(crate) async fn connect(socket: String) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    // The name means nothing: the connector knows where to go.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}
