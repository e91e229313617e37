//! The order of the sources, with all of them at work.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use registry::{Credential, DockerConfig};
use tonic::Code;
use tower::Service;

use super::kubernetes::BUILT_IN;
use super::*;

async fn user(keychains: &Keychains) -> String {
    match keychains.credentials().credential("q.io", "app").await.unwrap() {
        Some(Credential::Password { username, .. }) => username,
        _ => String::new(),
    }
}

/// A `PullImage` of `q.io/app` as user `cri`, in protobuf's encoding.
fn pull() -> hyper::Request<tonic::body::Body> {
    let message = b"\x0a\x0a\x0a\x08q.io/app\x12\x08\x0a\x03cri\x12\x01p";
    let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    body.extend(message);
    let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from(body)));
    hyper::Request::post("/runtime.v1.ImageService/PullImage").body(body).unwrap()
}

#[tokio::test]
async fn docker_comes_before_cri_and_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let docker = directory.path().join("config.json");
    let keychains = Keychains::start(KeychainSettings {
        docker: DockerConfig::from_file(&docker),
        kubeconfig: BUILT_IN.then(|| Kubeconfig { path: Some(directory.path().join("missing")) }),
        cri: Some(directory.path().join("nobody")),
    })
    .unwrap();
    assert_eq!(user(&keychains).await, "");
    // A pull that fails for want of containerd leaves its login all the same.
    let response = keychains.cri().unwrap().service().call(pull()).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(user(&keychains).await, "cri");
    std::fs::write(&docker, r#"{"auths": {"q.io": {"username": "docker", "password": "p"}}}"#).unwrap();
    assert_eq!(user(&keychains).await, "docker");
    std::fs::remove_file(&docker).unwrap();
    assert_eq!(user(&keychains).await, "cri");
    assert!(Keychains::start(KeychainSettings::default()).unwrap().cri().is_none());
}

#[tokio::test]
async fn a_program_without_kubernetes_refuses_to_start_with_its_logins() {
    let settings =
        KeychainSettings { kubeconfig: Some(Kubeconfig::default()), ..KeychainSettings::default() };
    let refused = Keychains::start(settings).err();
    assert_eq!(refused.is_none(), BUILT_IN);
    assert!(refused.is_none_or(|error| error.to_string().contains("--features kubernetes")));
}
