use std::time::Duration;

use super::*;

async fn location(registry: &TestRegistry, digest: &str) -> String {
    let answer = get(registry, &format!("/v2/r/blobs/{digest}")).await;
    assert_eq!(answer.status(), 307);
    header(&answer, "location").to_owned()
}

#[tokio::test]
async fn to_another_host() {
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start().await;
    let digest = registry.put_blob(sample());
    let url = location(&registry, &digest).await;
    assert!(url.starts_with(&format!("http://{}/", registry.redirect_host().unwrap())));
    assert_ne!(registry.redirect_host().unwrap(), registry.host());
    let client = client();
    let part = client.get(&url).header("range", "bytes=7-8").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap()), (206, sample().slice(7..9)));
    let log = registry.requests();
    assert_eq!((log[0].listener, log[1].listener), (Listener::Main, Listener::Redirect));
    assert_eq!(client.get(&url).bearer_auth("x").send().await.unwrap().status(), 400);
    assert_eq!(client.head(&url).send().await.unwrap().status(), 403);
    assert_eq!(client.get(url.split('?').next().unwrap()).send().await.unwrap().status(), 403);
    // HEAD is not redirected, and a blob that is not there neither.
    let head = request(&registry, Method::HEAD, &format!("/v2/r/blobs/{digest}")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "100000"));
    let other = crate::digest::sha256(b"other");
    assert_eq!(get(&registry, &format!("/v2/r/blobs/{other}")).await.status(), 404);
    registry.expire_redirects();
    let expired = client.get(&url).send().await.unwrap();
    assert_eq!(expired.status(), 403);
    assert!(expired.text().await.unwrap().contains("Request has expired"));
    let fresh = location(&registry, &digest).await;
    assert_eq!(client.get(fresh).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn urls_expire() {
    let uses = Redirect {
        expire_after_uses: Some(2),
        expired: Expired::ExpiredToken,
        other_host: false,
        ..Redirect::default()
    };
    let registry = TestRegistry::builder().redirect_blobs(uses).start().await;
    let digest = registry.put_blob("blob");
    let url = location(&registry, &digest).await;
    assert!(url.starts_with(&registry.url()) && registry.redirect_host().is_none());
    for status in [200, 200, 400] {
        let answer = client().get(&url).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.text().await.unwrap().contains("<Code>ExpiredToken</Code>"), status == 400);
    }
    let time = Redirect {
        // Long enough for a machine that does other things.
        expire_after: Some(Duration::from_secs(1)),
        expired: Expired::Unauthorized,
        ..Redirect::default()
    };
    let registry = TestRegistry::builder().redirect_blobs(time).start().await;
    let digest = registry.put_blob("blob");
    let url = location(&registry, &digest).await;
    assert_eq!(client().get(&url).send().await.unwrap().status(), 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(client().get(&url).send().await.unwrap().status(), 401);
}
