//! `WWW-Authenticate` (RFC 9110, 11.6.1).
//!
//! A header may hold several challenges, divided by commas like the parameters within each, and quoted strings may
//! hold commas and escapes. There may be several headers, too. The parser takes what it understands and never
//! fails: an odd challenge for a scheme of no interest must not hide the one that counts.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

use super::scope::Scope;

/// A scheme that this client speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    /// User name and password with each request.
    Basic,
    /// Tokens from a token server.
    Bearer {
        /// Where the token server is.
        realm: Url,
        /// The name of the registry there.
        service: Option<String>,
    },
}

/// A challenge for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: Scheme,
    pub(super) scope: Scope,
}

/// The challenges of one answer that this client can take up: Bearer before Basic, as every other client has it.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) bearer: Option<Challenge>,
    pub(super) basic: bool,
}

impl Offer {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let raw: Vec<_> =
            values.flat_map(|value| parse(&String::from_utf8_lossy(value.as_bytes()))).collect();
        let bearer = raw.iter().filter(|raw| raw.scheme.eq_ignore_ascii_case("bearer")).find_map(|raw| {
            let realm =
                Url::parse(raw.get("realm")?).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
            Some(Challenge {
                scheme: Scheme::Bearer { realm, service: raw.get("service").map(str::to_owned) },
                scope: Scope::parse(raw.get("scope").unwrap_or_default()),
            })
        });
        Self { bearer, basic: raw.iter().any(|raw| raw.scheme.eq_ignore_ascii_case("basic")) }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Raw {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Raw {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header value.
fn parse(text: &str) -> Vec<Raw> {
    let mut rest = Cursor(text);
    let mut all: Vec<Raw> = Vec::new();
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        let word = rest.take(is_token);
        if word.is_empty() {
            // Not a token: step over it, or end.
            if rest.bump().is_none() {
                return all;
            }
            continue;
        }
        let after_word = Cursor(rest.0);
        rest.skip(|c| c.is_ascii_whitespace());
        // `name = value` belongs to the challenge before it; a lone word begins a new one. A `=` that is followed
        // by the end, a comma or another `=` is the padding of a token68 instead.
        if rest.0.starts_with('=') && !is_padding(rest.0) {
            rest.bump();
            rest.skip(|c| c.is_ascii_whitespace());
            let value = if rest.0.starts_with('"') {
                rest.quoted()
            } else {
                rest.take(|c| !matches!(c, ',' | ' ' | '\t')).to_owned()
            };
            if let Some(challenge) = all.last_mut() {
                challenge.parameters.push((word.to_owned(), value));
            }
        } else {
            rest = after_word;
            all.push(Raw { scheme: word.to_owned(), parameters: Vec::new() });
            // A token68 (`Negotiate abc==`) stands where parameters would: left out.
            let mut probe = Cursor(rest.0);
            probe.skip(|c| c == ' ' || c == '\t');
            let token68 = probe.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
            let padded = probe.take(|c| c == '=');
            probe.skip(|c| c == ' ' || c == '\t');
            let ends = probe.0.is_empty() || probe.0.starts_with(',');
            if !token68.is_empty() && ends && (!padded.is_empty() || rest.0.starts_with([' ', '\t'])) {
                rest = probe;
            }
        }
    }
}

fn is_padding(text: &str) -> bool {
    let rest = text.trim_start_matches('=').trim_start_matches([' ', '\t']);
    text.starts_with("==") || rest.is_empty() || rest.starts_with(',')
}

/// RFC 9110, 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let first = chars.next();
        self.0 = chars.as_str();
        first
    }

    /// A quoted string; one that never ends reaches to the end.
    fn quoted(&mut self) -> String {
        self.bump();
        let mut value = String::new();
        while let Some(c) = self.bump() {
            match c {
                '"' => break,
                '\\' => value.extend(self.bump()),
                c => value.push(c),
            }
        }
        value
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        let Offer { bearer, basic } = Offer::of(&headers);
        bearer.or_else(|| basic.then(|| Challenge { scheme: Scheme::Basic, scope: Scope::default() }))
    }

    fn bearer(realm: &str, service: Option<&str>, scope: &str) -> Option<Challenge> {
        let scheme = Scheme::Bearer { realm: realm.parse().unwrap(), service: service.map(str::to_owned) };
        Some(Challenge { scheme, scope: Scope::parse(scope) })
    }

    #[test]
    fn real_registries() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/redis:pull""#;
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            "repository:library/redis:pull",
        );
        assert_eq!(of(&[hub]), expected);
        let ecr = r#"Basic realm="https://123.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#;
        assert_eq!(of(&[ecr]).unwrap().scheme, Scheme::Basic);
        assert_eq!(of(&["Basic"]).unwrap().scheme, Scheme::Basic);
        assert_eq!(of(&["BASIC realm=x"]).unwrap().scheme, Scheme::Basic);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn commas_quotes_escapes_and_spaces() {
        let expected =
            bearer("https://h/t?a=b,c", Some("say \"hi\", you"), "repository:a:pull,push repository:b:pull");
        let text = r#"bearer  realm = "https://h/t?a=b,c" ,service="say \"hi\", you",, error="invalid_token",scope="repository:a:pull,push repository:b:pull""#;
        assert_eq!(of(&[text]), expected);
        assert_eq!(of(&["Bearer realm=https://h/t,service=s"]), bearer("https://h/t", Some("s"), ""));
    }

    #[test]
    fn several_challenges_in_one_header_and_in_several() {
        let expected = bearer("https://h/t", None, "");
        assert_eq!(of(&[r#"Basic realm="a, b", Bearer realm="https://h/t""#]), expected);
        assert_eq!(of(&[r#"Basic realm="a""#, r#"Bearer realm="https://h/t""#]), expected);
        assert_eq!(of(&[r#"Negotiate, Bearer realm="https://h/t""#]), expected);
        assert_eq!(of(&[r#"Negotiate YWJj, Bearer realm="https://h/t""#]), expected);
        assert_eq!(of(&[r#"Negotiate YWJjZA==, Bearer realm="https://h/t", Basic realm=x"#]), expected);
    }

    #[test]
    fn unusable_challenges_are_passed_over() {
        assert_eq!(of(&["Bearer realm=\"not a url\""]), None);
        assert_eq!(of(&["Bearer service=x"]), None);
        assert_eq!(of(&["Bearer realm=\"file:///etc/passwd\""]), None);
        assert_eq!(of(&["Bearer realm=\"not a url\", Basic"]).unwrap().scheme, Scheme::Basic);
        assert_eq!(of(&["Digest realm=\"x\""]), None);
    }

    #[test]
    fn rubbish_neither_hangs_nor_panics() {
        for text in [
            "",
            ",",
            "=",
            "\"",
            "Bearer realm=\"",
            "Bearer realm=\"\\",
            "a=b=c==,",
            "ä ö=ü",
            "Bearer =",
            "x =",
        ] {
            let _ = parse(text);
        }
        // Every string over a small alphabet of troublesome characters, up to seven long.
        let alphabet = ['a', '=', ',', '"', '\\', ' ', 'é'];
        for length in 0..=6_u32 {
            for mut number in 0..7_u32.pow(length) {
                let mut text = String::new();
                for _ in 0..length {
                    text.push(alphabet[(number % 7) as usize]);
                    number /= 7;
                }
                let _ = parse(&text);
            }
        }
    }
}
