use super::*;

#[tokio::test]
async fn manifests_and_tags() {
    let registry = TestRegistry::builder().start().await;
    let digest = registry.put_manifest("a/b", "v1", MANIFEST, "{}");
    assert_eq!(get(&registry, "/v2/").await.status(), 200);
    for reference in ["v1", &digest] {
        let path = format!("/v2/a/b/manifests/{reference}");
        let answer = get(&registry, &path).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            (header(&answer, "content-type"), header(&answer, "docker-content-digest")),
            (MANIFEST, &*digest)
        );
        assert_eq!(answer.text().await.unwrap(), "{}");
        let head = request(&registry, Method::HEAD, &path).send().await.unwrap();
        assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "2"));
        assert_eq!(head.bytes().await.unwrap().len(), 0);
    }
    let code = |v: Value| v["errors"][0]["code"].as_str().unwrap().to_owned();
    let missing = get(&registry, "/v2/a/b/manifests/v2").await;
    assert_eq!(
        (missing.status().as_u16(), code(missing.json().await.unwrap())),
        (404, "MANIFEST_UNKNOWN".into())
    );
    let missing = get(&registry, "/v2/b/manifests/v2").await;
    assert_eq!(code(missing.json().await.unwrap()), "NAME_UNKNOWN");

    registry.put_manifest("a/b", "v3", MANIFEST, "{}");
    registry.put_manifest("a/b", "v2", MANIFEST, "{ }");
    let tags = |v: Value| {
        v["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(tags(get(&registry, "/v2/a/b/tags/list").await.json().await.unwrap()), ["v1", "v2", "v3"]);
    let page = get(&registry, "/v2/a/b/tags/list?n=2").await;
    assert_eq!(header(&page, "link"), "</v2/a/b/tags/list?n=2&last=v2>; rel=\"next\"");
    assert_eq!(tags(get(&registry, "/v2/a/b/tags/list?n=2&last=v2").await.json().await.unwrap()), ["v3"]);

    let delete = request(&registry, Method::DELETE, "/v2/a/b/manifests/v1").send().await.unwrap();
    assert_eq!(delete.status(), 202);
    assert_eq!(registry.tags("a/b"), ["v2", "v3"]);
    let path = format!("/v2/a/b/manifests/{digest}");
    assert_eq!(request(&registry, Method::DELETE, &path).send().await.unwrap().status(), 202);
    assert_eq!(registry.tags("a/b"), ["v2"]);
}

#[tokio::test]
async fn blobs_in_memory_and_in_files() {
    let registry = TestRegistry::builder().start().await;
    let data = sample();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("blob"), [&data[..], b"!"].concat()).unwrap();
    let memory = registry.put_blob(data.clone());
    let file = registry.put_blob_file(dir.path().join("blob"));
    for (digest, data) in [(&memory, data.to_vec()), (&file, [&data[..], b"!"].concat())] {
        let path = format!("/v2/any/repo/blobs/{digest}");
        let len = data.len();
        let answer = get(&registry, &path).await;
        assert_eq!(
            (header(&answer, "accept-ranges"), header(&answer, "docker-content-digest")),
            ("bytes", &**digest)
        );
        assert_eq!(answer.bytes().await.unwrap(), data);
        let head = request(&registry, Method::HEAD, &path).send().await.unwrap();
        assert_eq!(header(&head, "content-length"), len.to_string());
        for (range, expected) in [
            ("bytes=0-1", 0..2),
            ("bytes=5-5", 5..6),
            ("bytes=99000-", 99_000..len),
            ("bytes=99999-200000", 99_999..len),
            ("bytes=-10", len - 10..len),
        ] {
            let answer = ranged(&registry, &path, range).await;
            assert_eq!(answer.status(), 206, "{range}");
            let content_range = format!("bytes {}-{}/{len}", expected.start, expected.end - 1);
            assert_eq!(header(&answer, "content-range"), content_range);
            assert_eq!(answer.bytes().await.unwrap(), data[expected], "{range}");
        }
        let answer = ranged(&registry, &path, &format!("bytes={len}-")).await;
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "content-range")),
            (416, &*format!("bytes */{len}"))
        );
        for nonsense in ["bytes=5-4", "bytes=0-1,4-5", "lines=1-2"] {
            assert_eq!(ranged(&registry, &path, nonsense).await.status(), 200, "{nonsense}");
        }
        assert_eq!(registry.blob(digest).unwrap(), data);
    }
    let other = crate::digest::sha256(b"other");
    assert_eq!(get(&registry, &format!("/v2/r/blobs/{other}")).await.status(), 404);
    assert_eq!(get(&registry, "/v2/r/blobs/sha256:12").await.status(), 400);
    assert!(registry.remove_blob(&memory));
    assert_eq!(get(&registry, &format!("/v2/r/blobs/{memory}")).await.status(), 404);
}

#[tokio::test]
async fn referrers() {
    let registry = TestRegistry::builder().referrers_page(2).start().await;
    let config = registry.put_blob("{}");
    let subject = crate::digest::sha256(b"subject");
    let digests: Vec<String> = (0..5)
        .map(|n| {
            let kind = if n == 1 { "other" } else { "application/x.soci+json" };
            let body = referrer(&config, &subject, kind, n);
            let digest = crate::digest::sha256(&body);
            registry.put_manifest("r", &digest, MANIFEST, body)
        })
        .collect();
    let mut path = format!("/v2/r/referrers/{subject}?artifactType=application%2Fx.soci%2Bjson");
    let mut found = Vec::new();
    let mut pages = 0;
    while !path.is_empty() {
        let answer = get(&registry, &path).await;
        assert_eq!(
            (header(&answer, "content-type"), header(&answer, "oci-filters-applied")),
            (INDEX, "artifactType")
        );
        let link = header(&answer, "link").to_owned();
        path = link.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let index: Value = answer.json().await.unwrap();
        for descriptor in index["manifests"].as_array().unwrap() {
            assert_eq!(descriptor["artifactType"], "application/x.soci+json");
            found.push((
                descriptor["digest"].as_str().unwrap().to_owned(),
                descriptor["annotations"]["n"].clone(),
            ));
        }
        pages += 1;
    }
    let expected = [0, 2, 3, 4].map(|n| (digests[n].clone(), Value::from(n.to_string())));
    assert_eq!((found.as_slice(), pages), (&expected[..], 2));
    let all = get(&registry, &format!("/v2/r/referrers/{subject}?start=4")).await;
    assert_eq!(header(&all, "oci-filters-applied"), "");
    // A subject that nobody refers to has an empty list, not 404.
    let none: Value = get(&registry, &format!("/v2/r/referrers/{config}")).await.json().await.unwrap();
    assert_eq!(none["manifests"], json!([]));

    let off = TestRegistry::builder().referrers_api(false).start().await;
    assert_eq!(get(&off, &format!("/v2/r/referrers/{subject}")).await.status(), 404);
}

#[tokio::test]
async fn requests_are_recorded() {
    let registry = TestRegistry::builder().start().await;
    let digest = registry.put_blob(sample());
    let path = format!("/v2/r/blobs/{digest}");
    let client = client();
    for range in ["bytes=10-19", "bytes=99990-"] {
        let request = client
            .get(format!("{}{path}?ns=x", registry.url()))
            .header("range", range)
            .basic_auth("a", Some("b"));
        request.send().await.unwrap().bytes().await.unwrap();
    }
    get(&registry, "/v2/nowhere").await;
    let log = registry.requests();
    assert_eq!(log.len(), 3);
    assert_eq!(
        (log[0].method.as_str(), log[0].path.as_str(), log[0].query.as_deref()),
        ("GET", path.as_str(), Some("ns=x"))
    );
    assert_eq!((log[0].range, log[0].status, log[0].body_bytes_sent), (Some((10, 19)), 206, 10));
    assert_eq!((log[1].range, log[1].body_bytes_sent), (Some((99_990, u64::MAX)), 10));
    assert_eq!((log[2].status, log[2].range, log[2].listener), (404, None, Listener::Main));
    assert!(log[0].had_authorization && !log[2].had_authorization && log[0].time <= log[1].time);
    assert_eq!(log[0].connection, log[1].connection, "connections are kept alive");
    assert_eq!(registry.connections(), 2);
    assert_eq!(registry.bytes_sent(), 20 + log[2].body_bytes_sent);
    registry.clear_requests();
    assert_eq!((registry.requests().len(), registry.bytes_sent()), (0, 0));
}
