use std::time::Duration;

use super::*;

async fn token(registry: &TestRegistry, scope: &str, user: Option<(&str, &str)>) -> Response {
    let url = format!("{}/token?service=x&scope={scope}", registry.url());
    let mut request = client().get(url);
    if let Some((user, password)) = user {
        request = request.basic_auth(user, Some(password));
    }
    request.send().await.unwrap()
}

async fn ping(registry: &TestRegistry, path: &str, token: &str) -> Response {
    request(registry, Method::GET, path).bearer_auth(token).send().await.unwrap()
}

#[tokio::test]
async fn basic() {
    let registry = TestRegistry::builder().auth(Auth::basic("me", "pä:ss")).start().await;
    let refused = get(&registry, "/v2/").await;
    assert_eq!(
        (refused.status().as_u16(), header(&refused, "www-authenticate")),
        (401, "Basic realm=\"test registry\"")
    );
    for (password, status) in [("pä:ss", 200), ("other", 401)] {
        let answer =
            request(&registry, Method::GET, "/v2/").basic_auth("me", Some(password)).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn bearer_tokens_have_a_scope_and_an_end() {
    let registry = TestRegistry::builder().auth(Auth::bearer("me", "secret")).start().await;
    registry.put_manifest("a/b", "v1", MANIFEST, "{}");
    let path = "/v2/a/b/manifests/v1";
    let refused = get(&registry, path).await;
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"test-registry\",scope=\"repository:a/b:pull\"",
        registry.url()
    );
    assert_eq!((refused.status().as_u16(), header(&refused, "www-authenticate")), (401, &*challenge));
    assert_eq!(token(&registry, "repository:a/b:pull", None).await.status(), 401);
    assert_eq!(token(&registry, "repository:a/b:pull", Some(("me", "wrong"))).await.status(), 401);
    let answer: Value =
        token(&registry, "repository:a/b:pull", Some(("me", "secret"))).await.json().await.unwrap();
    assert_eq!((&answer["expires_in"], &answer["access_token"]), (&json!(300), &Value::Null));
    let good = answer["token"].as_str().unwrap();
    assert_eq!(ping(&registry, path, good).await.status(), 200);
    let other = ping(&registry, "/v2/c/manifests/v1", good).await;
    assert!(header(&other, "www-authenticate").ends_with(",error=\"insufficient_scope\""));
    let push = request(&registry, Method::POST, "/v2/a/b/blobs/uploads/")
        .bearer_auth(good)
        .header("content-length", 0)
        .send()
        .await
        .unwrap();
    assert!(header(&push, "www-authenticate").contains("repository:a/b:pull,push"));
    assert_eq!(ping(&registry, path, "invented").await.status(), 401);
    registry.expire_tokens();
    assert!(header(&ping(&registry, path, good).await, "www-authenticate").contains("invalid_token"));
    assert_eq!(registry.token_requests(), 3);
}

#[tokio::test]
async fn tokens_by_post() {
    let registry = TestRegistry::builder().auth(Auth::bearer("me", "secret")).start().await;
    let scope = "scope=repository%3Aa%3Apull&service=x&client_id=y";
    for (form, status) in [
        ("grant_type=password&username=me&password=secret", 200),
        ("grant_type=password&username=me&password=x", 401),
        ("grant_type=refresh_token&refresh_token=secret", 200),
        ("grant_type=device", 400),
    ] {
        let answer =
            request(&registry, Method::POST, "/token").body(format!("{form}&{scope}")).send().await.unwrap();
        assert_eq!(answer.status(), status, "{form}");
        if status == 200 {
            let answer: Value = answer.json().await.unwrap();
            let token = answer["token"].as_str().unwrap();
            assert_eq!(ping(&registry, "/v2/a/manifests/none", token).await.status(), 404);
        }
    }
}

#[tokio::test]
async fn short_lived_tokens_as_ecr_refuses_them() {
    let auth =
        Auth::Bearer { user: None, expires_in: Duration::from_secs(1), token_in: TokenIn::AccessToken };
    let registry = TestRegistry::builder().auth(auth).expired_token_status(403).start().await;
    let answer: Value = token(&registry, "repository:a:pull,push", None).await.json().await.unwrap();
    assert_eq!((&answer["token"], &answer["expires_in"]), (&Value::Null, &json!(1)));
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(ping(&registry, "/v2/", token).await.status(), 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let refused = ping(&registry, "/v2/", token).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "www-authenticate")), (403, ""));
    assert!(refused.text().await.unwrap().contains("Reauthenticate and try again."));
}
