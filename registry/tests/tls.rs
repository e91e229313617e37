//! TLS: certificate authorities, client certificates, and what must not leave an encrypted connection.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{SECRET, assert_clean, config};
use registry::{Client, ClientConfig, Credential, Error, Repository, StaticCredentials, TlsOptions};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testdata::registry::{Auth, TestRegistry};

use testdata::need::{Need, available};

const MANIFEST: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

/// An authority, a server certificate for 127.0.0.1 and a client certificate; `false` without openssl.
fn make_certificates(dir: &Path) -> bool {
    let script = r#"
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt
for name in server client; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
  printf 'subjectAltName=IP:127.0.0.1\n' > ext
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.cert
done
"#;
    if !available(&[Need::Program("openssl", "openssl")]) {
        return false;
    }
    let run = Command::new("sh").arg("-c").arg(script).current_dir(dir).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    true
}

/// A server that answers every request with what `answer` makes of its head. Runs until the process ends.
fn serve(
    dir: &Path,
    clients_need_certificates: bool,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = CertificateDer::from_pem_file(dir.join("server.cert")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let builder = rustls::ServerConfig::builder();
    let builder = if clients_need_certificates {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let config = Arc::new(builder.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, answer) = (config.clone(), answer.clone());
            std::thread::spawn(move || connection(stream, config, &*answer));
        }
    });
    host
}

fn connection(stream: TcpStream, config: Arc<rustls::ServerConfig>, answer: &dyn Fn(&str) -> String) {
    let Ok(connection) = rustls::ServerConnection::new(config) else { return };
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&std::mem::take(&mut head)).into_owned();
            if stream.write_all(answer(&head).as_bytes()).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    }
}

fn manifest(_: &str) -> String {
    let length = MANIFEST.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\nContent-Length: {length}\r\n\r\n{MANIFEST}"
    )
}

async fn get(client: &Client, host: &str) -> registry::Result<registry::Manifest> {
    client.manifest_in(&Repository::new(host, "a/b").unwrap(), "t").await
}

fn hosts(dir: &Path, host: &str, extra: &str) -> ClientConfig {
    let certs = dir.join("certs.d");
    std::fs::create_dir_all(certs.join(host)).unwrap();
    std::fs::write(certs.join(host).join("hosts.toml"), format!("server = \"https://{host}\"\n{extra}\n"))
        .unwrap();
    ClientConfig { hosts_dir: Some(certs), ..config() }
}

#[tokio::test]
async fn authorities_come_from_hosts_toml_docker_files_and_options() {
    let dir = tempfile::tempdir().unwrap();
    if !make_certificates(dir.path()) {
        return;
    }
    let host = serve(dir.path(), false, manifest);
    let untrusting = Client::new(hosts(dir.path(), &host, "")).unwrap();
    let error = get(&untrusting, &host).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("hosts.toml"), "{error}");
    assert_eq!(untrusting.stats().requests, 1, "trying again would not help");

    let ca = format!("ca = \"{}\"", dir.path().join("ca.crt").display());
    for extra in [ca.as_str(), "skip_verify = true", "ca = \"../../ca.crt\""] {
        get(&Client::new(hosts(dir.path(), &host, extra)).unwrap(), &host).await.unwrap();
    }
    let docker = dir.path().join("docker");
    std::fs::create_dir_all(docker.join(&host)).unwrap();
    std::fs::copy(dir.path().join("ca.crt"), docker.join(&host).join("my.crt")).unwrap();
    get(&Client::new(ClientConfig { hosts_dir: Some(docker), ..config() }).unwrap(), &host).await.unwrap();
    let tls = TlsOptions { ca_files: vec![dir.path().join("ca.crt")], ..TlsOptions::default() };
    get(&Client::new(ClientConfig { tls, ..config() }).unwrap(), &host).await.unwrap();
}

#[tokio::test]
async fn client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    if !make_certificates(dir.path()) {
        return;
    }
    let host = serve(dir.path(), true, manifest);
    let ca = "ca = \"../../ca.crt\"\n";
    let client = Client::new(hosts(
        dir.path(),
        &host,
        &format!("{ca}client = [[\"../../client.cert\", \"../../client.key\"]]"),
    ));
    get(&client.unwrap(), &host).await.unwrap();
    let mut config = hosts(dir.path(), &host, ca);
    config.retry.max_retries = 0;
    assert!(get(&Client::new(config).unwrap(), &host).await.is_err());
}

#[tokio::test]
async fn redirects_from_https_to_http_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    if !make_certificates(dir.path()) {
        return;
    }
    let plain = TestRegistry::builder().start().await;
    plain.put_manifest("a/b", "t", "application/vnd.oci.image.index.v1+json", MANIFEST);
    let target = format!("{}/v2/a/b/manifests/t?sig={SECRET}", plain.url());
    let host = serve(dir.path(), false, move |_| {
        format!("HTTP/1.1 307 x\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n")
    });
    let config = hosts(dir.path(), &host, "skip_verify = true");
    let error = get(&Client::new(config.clone()).unwrap(), &host).await.unwrap_err();
    assert!(error.to_string().contains("plain HTTP refused"), "{error}");
    assert_clean(&error, &[]);
    assert!(plain.requests().is_empty());
    get(&Client::new(ClientConfig { plain_http: true, ..config }).unwrap(), &host).await.unwrap();
}

#[tokio::test]
async fn a_plain_token_server_gets_no_credentials_of_an_https_registry() {
    let dir = tempfile::tempdir().unwrap();
    if !make_certificates(dir.path()) {
        return;
    }
    let tokens = TestRegistry::builder().auth(Auth::anonymous_bearer()).start().await;
    let realm = format!("{}/token", tokens.url());
    let host = serve(dir.path(), false, move |head| {
        if head.to_ascii_lowercase().contains("authorization: bearer token-") {
            return manifest(head);
        }
        format!(
            "HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\nContent-Length: 0\r\n\r\n"
        )
    });
    let credentials = Arc::new(StaticCredentials::new(Credential::password("me", SECRET)));
    let config = ClientConfig { credentials, ..hosts(dir.path(), &host, "skip_verify = true") };
    get(&Client::new(config).unwrap(), &host).await.unwrap();
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].had_authorization), ("GET", false));
}
