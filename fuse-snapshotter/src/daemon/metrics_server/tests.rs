#![expect(clippy::unwrap_used, reason = "a test may panic")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;

/// Sends `request` and gives the whole answer.
async fn talk(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &str,
) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn metrics_are_served_over_tcp() {
    for address in ["127.0.0.1:0", ":0"] {
        let server = Server::bind(&MetricsEndpoint::Tcp(address.into())).await.unwrap();
        let port = server.tcp_address().unwrap().port();
        let metrics = Metrics::new();
        let task = tokio::spawn(server.run(metrics.clone()));
        let connect = || TcpStream::connect(("127.0.0.1", port));
        let answer = talk(connect().await.unwrap(), GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert_eq!(body, metrics.render());
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
            ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let answer = talk(connect().await.unwrap(), request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        // Silent ones do not keep others out.
        let mut silent = Vec::new();
        for _ in 0..server_limit() - 1 {
            silent.push(connect().await.unwrap());
        }
        assert!(talk(connect().await.unwrap(), GET).await.starts_with("HTTP/1.1 200 "));
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
    }
}

fn server_limit() -> usize {
    super::CONNECTIONS
}

#[tokio::test]
async fn metrics_are_served_on_a_socket_and_a_dead_one_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metrics.sock");
    let endpoint = MetricsEndpoint::Unix(path.clone());
    for _ in 0..2 {
        // The second time the socket of the first is there still.
        let server = Server::bind(&endpoint).await.unwrap();
        let in_use = Server::bind(&endpoint).await.unwrap_err();
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        let task = tokio::spawn(server.run(Metrics::new()));
        let answer = talk(UnixStream::connect(&path).await.unwrap(), GET).await;
        assert!(answer.contains("soci_fs_operation_count"), "{answer}");
        task.abort();
        task.await.unwrap_err();
        assert!(path.exists());
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "somebody's").unwrap();
    Server::bind(&endpoint).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
}
