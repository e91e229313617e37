//! Authentication: challenges, and the token endpoint.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use serde_json::json;

use super::builder::{Auth, TokenIn};
use super::reply::Reply;
use super::router::{Route, form};
use super::server::Shared;

/// The service name in challenges.
const SERVICE: &str = "test-registry";

/// What ECR says; clients recognise an expired token by it.
const ECR_MESSAGE: &str = "Your authorization token has expired. Reauthenticate and try again.";

#[derive(Debug)]
struct Token {
    expires: Instant,
    /// Repository and action.
    access: Vec<(String, String)>,
}

/// The tokens issued so far.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<String, Token>>);

impl Tokens {
    /// Makes all of them invalid.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        self.0.lock().unwrap().values_mut().for_each(|t| t.expires = now);
    }

    fn issue(&self, scopes: &[String], lifetime: Duration) -> String {
        let mut tokens = self.0.lock().unwrap();
        let name = format!("token-{}", tokens.len() + 1);
        let mut access = Vec::new();
        for scope in scopes.iter().flat_map(|s| s.split_whitespace()) {
            let mut fields = scope.splitn(3, ':');
            if let (Some("repository"), Some(repo), Some(actions)) =
                (fields.next(), fields.next(), fields.next())
            {
                access.extend(actions.split(',').map(|a| (repo.to_owned(), a.to_owned())));
            }
        }
        tokens.insert(name.clone(), Token { expires: Instant::now() + lifetime, access });
        name
    }

    fn check(&self, name: &str, need: Option<(&str, &str)>) -> Verdict {
        let tokens = self.0.lock().unwrap();
        let Some(token) = tokens.get(name) else { return Verdict::Unknown };
        if token.expires <= Instant::now() {
            return Verdict::Expired;
        }
        let grants = |(repo, action): (&str, &str)| {
            token.access.iter().any(|(r, a)| r == repo && (a == action || a == "*"))
        };
        if need.is_none_or(grants) { Verdict::Good } else { Verdict::InsufficientScope }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Unknown,
    Expired,
    InsufficientScope,
}

/// The answer that keeps a request out, unless it may pass.
pub(super) fn refusal(shared: &Shared, parts: &Parts, route: &Route) -> Option<Reply> {
    let given = parts.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    match &shared.config.auth {
        Auth::None => None,
        Auth::Basic { user, password } => {
            if given.is_some_and(|g| is_basic(g, user, password)) {
                return None;
            }
            Some(unauthorized().header("www-authenticate", "Basic realm=\"test registry\""))
        }
        Auth::Bearer { .. } => {
            let reads = matches!(parts.method, Method::GET | Method::HEAD)
                && !matches!(route, Route::Upload { .. } | Route::Uploads { .. });
            let action = match parts.method {
                _ if reads => "pull",
                Method::DELETE if !matches!(route, Route::Upload { .. }) => "delete",
                _ => "push",
            };
            let need = route.repo().map(|repo| (repo, action));
            let token = given.and_then(|g| g.strip_prefix("Bearer "));
            let error = match token.map(|t| shared.tokens.check(t, need)) {
                Some(Verdict::Good) => return None,
                Some(_) if shared.config.basic_for_bad_tokens => {
                    return Some(unauthorized().header("www-authenticate", "Basic realm=\"harbor\""));
                }
                Some(Verdict::Expired) if shared.config.expired_token_status == 403 => {
                    return Some(Reply::error(403, "DENIED", ECR_MESSAGE));
                }
                Some(Verdict::Expired | Verdict::Unknown) => ",error=\"invalid_token\"",
                Some(Verdict::InsufficientScope) => ",error=\"insufficient_scope\"",
                None => "",
            };
            let scope = route.repo().map_or(String::new(), |repo| {
                let actions = if action == "push" { "pull,push" } else { action };
                format!(",scope=\"repository:{repo}:{actions}\"")
            });
            let realm = format!("http://{}/token", shared.main);
            let challenge = format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}{error}");
            Some(unauthorized().header("www-authenticate", &challenge))
        }
    }
}

/// The token endpoint, in Docker's form (GET with basic authentication) and in OAuth 2's (POST of a form).
pub(super) async fn token(shared: &Shared, parts: &Parts, body: Incoming) -> Reply {
    let Auth::Bearer { user, expires_in, token_in } = &shared.config.auth else {
        return Reply::new(404).body("text/plain", "404 page not found\n");
    };
    let posted = match parts.method {
        Method::GET => None,
        Method::POST => match body.collect().await {
            Ok(body) => Some(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
            Err(_) => return Reply::new(400),
        },
        _ => return Reply::new(405),
    };
    let values = form(posted.as_deref().or(parts.uri.query()).unwrap_or_default());
    let value = |name: &str| values.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
    let mut scopes: Vec<String> =
        values.iter().filter(|(n, _)| n == "scope").map(|(_, v)| v.clone()).collect();
    if let Some((user, password)) = user {
        let given = parts.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let allowed = match (posted.is_some(), value("grant_type")) {
            (true, "password") => value("username") == user && value("password") == password,
            (true, "refresh_token") => value("refresh_token") == password,
            (true, _) => return Reply::new(400).json(&json!({ "error": "unsupported_grant_type" })),
            (false, _) => given.is_some_and(|g| is_basic(g, user, password)),
        };
        match &shared.config.public {
            _ if allowed => {}
            // A login that is wrong is refused, none is not.
            Some(public) if given.is_none() && posted.is_none() => {
                scopes.retain(|scope| scope.starts_with(&format!("repository:{public}")));
            }
            _ => return unauthorized(),
        }
    }
    let token = shared.tokens.issue(&scopes, *expires_in);
    let mut answer = json!({ "expires_in": expires_in.as_secs() });
    if matches!(token_in, TokenIn::Token | TokenIn::Both) {
        answer["token"] = token.clone().into();
    }
    if matches!(token_in, TokenIn::AccessToken | TokenIn::Both) {
        answer["access_token"] = token.into();
    }
    Reply::new(200).json(&answer)
}

fn unauthorized() -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required")
}

fn is_basic(header: &str, user: &str, password: &str) -> bool {
    let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
    scheme.eq_ignore_ascii_case("basic") && value.trim() == base64(format!("{user}:{password}").as_bytes())
}

/// Standard base64 with padding. Comparing what a client should send needs no decoder, and no crate for ten lines.
fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in data.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let sextet = (bits >> (18 - 6 * i)) & 63;
            text.push(if i <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_of_all_lengths() {
        let vectors = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in vectors {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
