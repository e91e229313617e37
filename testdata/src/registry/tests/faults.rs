use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Everything that comes back for a request, to the end of the connection.
async fn raw(registry: &TestRegistry, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(registry.addr()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

async fn fixture() -> (TestRegistry, String) {
    let registry = TestRegistry::builder().start().await;
    let digest = registry.put_blob(sample());
    (registry, format!("/v2/r/blobs/{digest}"))
}

#[tokio::test]
async fn answers_instead_of_the_true_one() {
    let (registry, path) = fixture().await;
    let busy = Action::Status(429, vec![("Retry-After".into(), "1".into())], "busy".into());
    registry.inject(Fault::times(2, busy).path("/blobs/").method("get").after(1));
    for status in [200, 429, 429, 200] {
        let answer = get(&registry, &path).await;
        assert_eq!(answer.status(), status);
        assert_eq!(header(&answer, "retry-after"), if status == 429 { "1" } else { "" });
    }
    registry.inject(Fault::status(500).path("/tags/"));
    registry.inject(Fault::once(Action::Redirect("http://else/".into())).range_only());
    assert_eq!(get(&registry, &path).await.status(), 200, "no range");
    assert_eq!(header(&ranged(&registry, &path, "bytes=0-1").await, "location"), "http://else/");
    assert_eq!(get(&registry, "/v2/r/tags/list").await.status(), 500);
    registry.clear_faults();
    assert_eq!(get(&registry, "/v2/r/tags/list").await.status(), 404);
    registry.inject(Fault::once(Action::DropConnection));
    assert_eq!(raw(&registry, &path).await, b"");
    assert_eq!(registry.requests().last().unwrap().status, 0);
}

#[tokio::test]
async fn ranges_gone_wrong() {
    let (registry, path) = fixture().await;
    for action in [Action::IgnoreRange, Action::WrongContentRange, Action::Multipart] {
        registry.inject(Fault::once(action));
    }
    // Not used up by a request without a range.
    assert_eq!(get(&registry, &path).await.bytes().await.unwrap(), sample());
    let whole = ranged(&registry, &path, "bytes=5-9").await;
    assert_eq!((whole.status().as_u16(), header(&whole, "content-range")), (200, ""));
    assert_eq!(whole.bytes().await.unwrap(), sample());
    let wrong = ranged(&registry, &path, "bytes=5-9").await;
    assert_eq!((wrong.status().as_u16(), header(&wrong, "content-range")), (206, "bytes 6-10/100001"));
    assert_eq!(wrong.bytes().await.unwrap(), sample().slice(5..10));
    let multipart = ranged(&registry, &path, "bytes=5-9").await;
    assert!(header(&multipart, "content-type").starts_with("multipart/byteranges; boundary="));
    let body = multipart.bytes().await.unwrap();
    assert!(body.windows(5).any(|w| w == &sample()[5..10]));
    assert!(String::from_utf8_lossy(&body).contains("Content-Range: bytes 5-9/100000"));
    assert_eq!(ranged(&registry, &path, "bytes=5-9").await.status(), 206);
}

#[tokio::test]
async fn bodies_gone_wrong() {
    let (registry, path) = fixture().await;
    for n in [0, 1, 77_777] {
        registry.clear_requests();
        registry.inject(Fault::once(Action::ShortBody(n)));
        let answer = raw(&registry, &path).await;
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(String::from_utf8_lossy(&answer[..head]).contains("content-length: 100000"));
        assert_eq!(&answer[head..], &sample()[..n as usize]);
        assert_eq!(registry.requests()[0].body_bytes_sent, n);
    }
    registry.inject(Fault::once(Action::CorruptByte(70_000)));
    let mut changed = sample().to_vec();
    changed[70_000] ^= 1;
    assert_eq!(get(&registry, &path).await.bytes().await.unwrap(), changed);
    registry.inject(Fault::once(Action::BadDigestHeader));
    assert!(!path.ends_with(header(&get(&registry, &path).await, "docker-content-digest")));
    // A fault at a place that the body has not got waits for one that has.
    registry.inject(Fault::once(Action::CorruptByte(50)));
    assert_eq!(ranged(&registry, &path, "bytes=0-9").await.bytes().await.unwrap(), sample().slice(..10));
    assert_ne!(ranged(&registry, &path, "bytes=0-99").await.bytes().await.unwrap(), sample().slice(..100));
}

#[tokio::test]
async fn silence() {
    let (registry, path) = fixture().await;
    let pause = Duration::from_millis(120);
    registry.inject(Fault::once(Action::Stall(pause)));
    let start = Instant::now();
    let answer = get(&registry, &path).await;
    assert!(start.elapsed() >= pause);
    assert_eq!(answer.bytes().await.unwrap(), sample());
    registry.inject(Fault::once(Action::StallAfter(10, pause)));
    let start = Instant::now();
    let mut answer = get(&registry, &path).await;
    let first = answer.chunk().await.unwrap().unwrap();
    assert!(start.elapsed() < pause, "the first bytes come at once");
    assert_eq!(first, sample()[..10]);
    assert_eq!(answer.bytes().await.unwrap(), sample().slice(10..));
    assert!(start.elapsed() >= pause);
}

#[tokio::test]
async fn outages() {
    let (registry, path) = fixture().await;
    let client = client();
    let fetch = || client.get(format!("{}{path}", registry.url())).timeout(Duration::from_millis(200)).send();
    assert!(fetch().await.is_ok());
    registry.set_down(true);
    assert!(fetch().await.is_err());
    registry.set_down(false);
    assert!(fetch().await.is_ok());
    registry.set_outage(Outage::Refuse);
    assert_eq!(
        TcpStream::connect(registry.addr()).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    registry.set_outage(Outage::None);
    assert!(fetch().await.is_ok());
    registry.set_outage(Outage::Silent);
    assert!(fetch().await.unwrap_err().is_timeout());
    registry.set_outage(Outage::None);
    assert!(fetch().await.is_ok());
    let addr = registry.addr();
    drop(registry);
    assert!(TcpStream::connect(addr).await.is_err());
}

#[test]
fn blocking_registry_serves_and_stops() {
    let registry = TestRegistry::builder().start_blocking();
    let digest = registry.put_blob("blob");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = runtime
        .block_on(async { get(&registry, &format!("/v2/r/blobs/{digest}")).await.text().await.unwrap() });
    assert_eq!(body, "blob");
    let addr = registry.addr();
    // Dropping inside a runtime must work too.
    runtime.block_on(async { drop(registry) });
    assert!(std::net::TcpStream::connect(addr).is_err());
}
