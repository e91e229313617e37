//! What the proxy reads of the messages that it passes on.

use bytes::{Buf, Bytes};
use containerd_api::cri::{AuthConfig, PullImageRequest, PullImageResponse, RemoveImageRequest};
use prost::Message;
use registry::{Credential, Reference};

/// A pull with a login.
pub(super) struct Login {
    pub(super) reference: Reference,
    /// `host[:port]`, or empty.
    pub(super) server: String,
    pub(super) credential: Credential,
}

/// The login in a `PullImage` request's body. `None` if there is none, or if it cannot be understood; the backend is the
/// one to complain then.
pub(super) fn login(body: &Bytes) -> Option<Login> {
    let request = PullImageRequest::decode(payload(body)?).ok()?;
    let auth = request.auth?;
    let credential = credential(&auth)?;
    let reference = request.image?.image.parse().ok()?;
    Some(Login { reference, server: host_of(&auth.server_address).to_owned(), credential })
}

/// The image in a `RemoveImage` request's body.
pub(super) fn removed(body: &Bytes) -> Option<String> {
    let request = RemoveImageRequest::decode(payload(body)?).ok()?;
    request.image.map(|spec| spec.image).filter(|image| !image.is_empty())
}

/// The image's id in a `PullImage` response's body; empty if it has none.
pub(super) fn image_id(body: &Bytes) -> String {
    payload(body).and_then(|bytes| PullImageResponse::decode(bytes).ok()).unwrap_or_default().image_ref
}

/// The only message of a unary call (gRPC over HTTP/2, "Length-Prefixed-Message"). `None` if it is compressed, which
/// no kubelet does, or if the body is something else.
fn payload(body: &Bytes) -> Option<Bytes> {
    let mut rest = body.clone();
    let (compressed, len) = (rest.try_get_u8().ok()?, rest.try_get_u32().ok()?);
    (compressed == 0 && usize::try_from(len) == Ok(rest.len())).then_some(rest)
}

/// In the order in which containerd looks.
fn credential(auth: &AuthConfig) -> Option<Credential> {
    if !auth.username.is_empty() {
        return Some(Credential::password(&auth.username, &auth.password));
    }
    if !auth.identity_token.is_empty() {
        return Some(Credential::IdentityToken(auth.identity_token.clone()));
    }
    if !auth.registry_token.is_empty() {
        return Some(Credential::RegistryToken(auth.registry_token.clone()));
    }
    Credential::from_auth(&auth.auth)
}

/// `host[:port]` of `server_address`, which is a host or a URL (`https://index.docker.io/v1/`).
fn host_of(address: &str) -> &str {
    let address = address.trim();
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> AuthConfig {
        AuthConfig::default()
    }

    #[test]
    fn all_kinds_of_login() {
        let text = str::to_owned;
        let cases = [
            (
                AuthConfig { username: text("u"), password: text("p"), identity_token: text("i"), ..auth() },
                Some(Credential::password("u", "p")),
            ),
            (
                AuthConfig { identity_token: text("i"), auth: text("YTpi"), ..auth() },
                Some(Credential::IdentityToken(text("i"))),
            ),
            (
                AuthConfig { registry_token: text("r"), auth: text("YTpi"), ..auth() },
                Some(Credential::RegistryToken(text("r"))),
            ),
            (AuthConfig { auth: text("bWU6cGE6c3M"), ..auth() }, Some(Credential::password("me", "pa:ss"))),
            (AuthConfig { auth: text("OnRvaw=="), ..auth() }, Some(Credential::IdentityToken(text("tok")))),
            (AuthConfig { auth: text("?"), ..auth() }, None),
            (auth(), None),
        ];
        for (auth, expected) in cases {
            assert_eq!(credential(&auth), expected);
        }
    }

    #[test]
    fn hosts_of_server_addresses() {
        for (address, host) in [
            ("", ""),
            ("q.io", "q.io"),
            ("q.io:5000/v2/", "q.io:5000"),
            ("https://index.docker.io/v1/", "index.docker.io"),
            (" http://[::1]:5000 ", "[::1]:5000"),
        ] {
            assert_eq!(host_of(address), host, "{address}");
        }
    }

    #[test]
    fn odd_bodies_are_nothing() {
        for body in [
            &b""[..],
            b"\0\0\0",
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x05abc",
            b"\0\0\0\0\0tail",
            b"\0\0\0\0\x03\x0a\x7fx",
            b"\0\xff\xff\xff\xffx",
        ] {
            let body = Bytes::from_static(body);
            assert!(login(&body).is_none() && removed(&body).is_none());
            assert_eq!(image_id(&body), "");
        }
    }

    #[test]
    fn secrets_have_no_debug_output() {
        let auth = AuthConfig { password: "hush".to_owned(), username: "hush".to_owned(), ..auth() };
        let request = PullImageRequest { image: None, auth: Some(auth) };
        assert!(!format!("{request:?}").contains("hush"));
    }
}
