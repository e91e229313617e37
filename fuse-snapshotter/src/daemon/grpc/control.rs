//! What `soci-snapshotter-grpc status` asks the daemon, over the same socket.

/// The service's definitions, of `proto/control.proto`.
#[expect(unreachable_pub, reason = "generated code")]
mod generated {
    include!("generated/soci.control.v1.rs");
}

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::status::status;
use crate::snapshotter::Snapshotter;
use generated::control_server::Control;
use generated::{StatusRequest, StatusResponse};

/// The server's side.
#[derive(Debug, Clone)]
pub struct ControlServer {
    snapshotter: Arc<Snapshotter>,
}

impl ControlServer {
    /// The service, to be added to a server.
    #[must_use]
    pub fn server(snapshotter: Arc<Snapshotter>) -> generated::control_server::ControlServer<Self> {
        generated::control_server::ControlServer::new(Self { snapshotter })
    }
}

#[tonic::async_trait]
impl Control for ControlServer {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.snapshotter.status().await.map_err(|error| status(&error))?;
        let json = serde_json::to_string(&status).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(StatusResponse { json }))
    }
}

/// The client's side.
#[derive(Debug)]
pub struct ControlClient {
    client: generated::control_client::ControlClient<tonic::transport::Channel>,
}

/// Largest answer that is read, in bytes: thousands of layers.
const MAX_ANSWER: usize = 64 << 20;

impl ControlClient {
    /// Connects to the daemon that listens at `address`, a path or `unix://PATH`.
    ///
    /// # Errors
    /// If nobody listens there.
    pub async fn connect(address: &str) -> Result<Self, tonic::transport::Error> {
        let path = address.strip_prefix("unix://").unwrap_or(address).to_owned();
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        });
        // The name means nothing: the connector knows where to go.
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await?;
        let client = generated::control_client::ControlClient::new(channel);
        Ok(Self { client: client.max_decoding_message_size(MAX_ANSWER) })
    }

    /// The daemon's state as JSON; see [`crate::daemon::status`].
    ///
    /// # Errors
    /// If the daemon cannot tell.
    pub async fn status(&mut self) -> Result<String, Status> {
        Ok(self.client.status(StatusRequest {}).await?.into_inner().json)
    }
}
