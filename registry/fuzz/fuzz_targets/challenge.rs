//! `WWW-Authenticate` of anybody: what is taken up leads to a token server by HTTP or HTTPS.
//!
//! The input is header values, one a line.
#![no_main]

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use libfuzzer_sys::fuzz_target;
use registry::fuzzing::challenge;
use testdata::seeds;

fn seeds() -> Vec<&'static str> {
    vec![
        r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:app:pull,push""#,
        "Basic realm=\"Registry\"\nBearer realm=\"http://127.0.0.1:5000/token\", service=x, scope=\"aws a:b:c,d\", \
         error=\"invalid_token\"",
        r#"Negotiate abc==, Digest realm="a, \"b\"", nonce=n, bearer Realm = "https://a" , Basic"#,
    ]
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    let mut headers = HeaderMap::new();
    for value in data.split(|byte| *byte == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    if let Some((realm, scope)) = challenge(&headers) {
        assert!(matches!(realm.scheme(), "https" | "http") && realm.host_str().is_some_and(|host| !host.is_empty()));
        assert!(!scope.contains("  "), "resources are divided by one space");
    }
});
