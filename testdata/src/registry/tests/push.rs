use super::*;

async fn send(
    registry: &TestRegistry,
    method: Method,
    url: &str,
    body: impl Into<reqwest::Body>,
) -> Response {
    let url = if url.starts_with('/') { format!("{}{url}", registry.url()) } else { url.to_owned() };
    let body = body.into();
    let length = body.as_bytes().map_or(0, <[u8]>::len);
    client().request(method, url).header("content-length", length).body(body).send().await.unwrap()
}

#[tokio::test]
async fn uploads_in_pieces() {
    for relative in [false, true] {
        let registry = TestRegistry::builder().relative_locations(relative).start().await;
        let digest = crate::digest::sha256(b"hello world");
        let begun = send(&registry, Method::POST, "/v2/r/s/blobs/uploads/", "").await;
        assert_eq!(begun.status(), 202);
        let location = header(&begun, "location").to_owned();
        assert_eq!(location.starts_with('/'), relative);
        let patch = |data: &'static str, range: &'static str| {
            let location = if relative { format!("{}{location}", registry.url()) } else { location.clone() };
            client().patch(location).header("content-range", range).body(data).send()
        };
        let first = patch("hello ", "0-5").await.unwrap();
        assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-5"));
        assert_eq!(patch("hello ", "0-5").await.unwrap().status(), 416);
        let status = send(&registry, Method::GET, &location, "").await;
        assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-5"));
        // A client that forgets the query of Location is told.
        let bare = location.split('?').next().unwrap().to_owned();
        assert_eq!(
            send(&registry, Method::PUT, &format!("{bare}?digest={digest}"), "world").await.status(),
            400
        );
        let done = send(&registry, Method::PUT, &format!("{location}&digest={digest}"), "world").await;
        assert_eq!((done.status().as_u16(), header(&done, "docker-content-digest")), (201, &*digest));
        assert!(header(&done, "location").ends_with(&format!("/v2/r/s/blobs/{digest}")));
        assert_eq!(registry.blob(&digest).unwrap(), "hello world");
        assert_eq!(get(&registry, &format!("/v2/r/s/blobs/{digest}")).await.status(), 200);
        // It is in this repository only.
        assert_eq!(get(&registry, &format!("/v2/other/blobs/{digest}")).await.status(), 404);
    }
}

#[tokio::test]
async fn monolithic_mounted_cancelled_and_wrong() {
    let registry = TestRegistry::builder().start().await;
    let digest = crate::digest::sha256(b"blob");
    let post = |query: String| send(&registry, Method::POST, query.leak(), "blob");
    assert_eq!(post(format!("/v2/from/blobs/uploads/?digest={digest}")).await.status(), 201);
    assert_eq!(post(format!("/v2/to/blobs/uploads/?mount={digest}&from=from")).await.status(), 201);
    assert_eq!(get(&registry, &format!("/v2/to/blobs/{digest}")).await.status(), 200);
    // What cannot be mounted becomes an upload.
    let upload = post(format!("/v2/to/blobs/uploads/?mount={digest}&from=nowhere")).await;
    assert_eq!(upload.status(), 202);
    let location = header(&upload, "location").to_owned();
    let wrong = send(&registry, Method::PUT, &format!("{location}&digest={digest}"), "other").await;
    assert_eq!(wrong.status(), 400);
    assert_eq!(wrong.json::<serde_json::Value>().await.unwrap()["errors"][0]["code"], "DIGEST_INVALID");
    let upload = post("/v2/to/blobs/uploads/".into()).await;
    let location = header(&upload, "location").to_owned();
    assert_eq!(send(&registry, Method::DELETE, &location, "").await.status(), 204);
    assert_eq!(send(&registry, Method::PATCH, &location, "x").await.status(), 404);
}

#[tokio::test]
async fn manifests_are_checked() {
    let registry = TestRegistry::builder().start().await;
    let config = crate::digest::sha256(b"{}");
    let subject = crate::digest::sha256(b"subject");
    let body = referrer(&config, &subject, "t", 0);
    let digest = crate::digest::sha256(&body);
    let put = |reference: &str, media_type: &str, body: Bytes| {
        let url = format!("{}/v2/r/manifests/{reference}", registry.url());
        client().put(url).header("content-type", media_type).body(body).send()
    };
    assert_eq!(put("v1", MANIFEST, body.clone()).await.unwrap().status(), 404, "the config is missing");
    registry.put_blob("{}");
    assert_eq!(put("v1", "text/plain", body.clone()).await.unwrap().status(), 400);
    assert_eq!(put("v1", INDEX, body.clone()).await.unwrap().status(), 400, "mediaType says manifest");
    assert_eq!(put("v1", MANIFEST, "nonsense".into()).await.unwrap().status(), 400);
    assert_eq!(put(&config, MANIFEST, body.clone()).await.unwrap().status(), 400, "another digest");
    let index = json!({ "schemaVersion": 2, "manifests": [{ "digest": digest }] }).to_string();
    assert_eq!(put("i", INDEX, index.clone().into()).await.unwrap().status(), 404, "its manifest is missing");
    let done = put(&digest, MANIFEST, body.clone()).await.unwrap();
    assert_eq!((done.status().as_u16(), header(&done, "oci-subject")), (201, &*subject));
    assert_eq!(header(&done, "docker-content-digest"), digest);
    assert_eq!(put("i", INDEX, index.into()).await.unwrap().status(), 201);
    assert_eq!(registry.tags("r"), ["i"]);

    let off = TestRegistry::builder().referrers_api(false).check_references(false).start().await;
    let url = format!("{}/v2/r/manifests/v1", off.url());
    let done = client().put(url).header("content-type", MANIFEST).body(body).send().await.unwrap();
    assert_eq!((done.status().as_u16(), header(&done, "oci-subject")), (201, ""));
}
