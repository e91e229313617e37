//! References as nearly all are written, read without the grammar of [`oci_distribution`].
//!
//! That grammar is a regular expression with all of Unicode in its tags: a process that reads its first reference compiles it for
//! 60 ms, which is a tenth of a container's start over a quick link, and `soci pull` and the daemon both do. What is read here
//! means the same there, which the tests compare. All else, and whatever is wrong, is left to it.

use std::borrow::Cow;

use super::name::{DOCKER_HUB, split_port, valid_tag};

/// The host that Docker Hub's references named once.
const DOCKER_HUB_ONCE: &str = "index.docker.io";

/// The parts of a reference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain<'t> {
    pub(super) registry: &'t str,
    pub(super) repository: Cow<'t, str>,
    pub(super) tag: Option<&'t str>,
    /// As it is written.
    pub(super) digest: Option<&'t str>,
}

/// Reads a reference, if it is a plain one.
pub(super) fn parse(text: &str) -> Option<Plain<'_>> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let hex = digest.map(|digest| digest.strip_prefix("sha256:"));
    if hex.is_some_and(|hex| !hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))) {
        return None;
    }
    // A colon in front of a slash is that of a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !valid_tag(tag)) {
        return None;
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
        _ => (DOCKER_HUB, name),
    };
    let registry = if registry == DOCKER_HUB_ONCE { DOCKER_HUB } else { registry };
    if !is_host(registry) || !path.split('/').all(is_component) {
        return None;
    }
    let is_official = registry == DOCKER_HUB && !path.contains('/');
    let repository = if is_official { Cow::Owned(format!("library/{path}")) } else { Cow::Borrowed(path) };
    Some(Plain { registry, repository, tag, digest })
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(is_label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Letters and digits, and between them a dot, one or two underscores, or dashes.
fn is_component(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let is_separator =
        |run: &[u8]| matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-');
    bytes.first().copied().is_some_and(is_word)
        && bytes.last().copied().is_some_and(is_word)
        && bytes
            .chunk_by(|one, other| is_word(*one) == is_word(*other))
            .all(|run| is_word(run[0]) || is_separator(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library makes of it.
    fn by_library(text: &str) -> Option<(String, String, Option<String>, Option<String>)> {
        let read: oci_distribution::Reference = text.parse().ok()?;
        let own = |text: &str| text.to_owned();
        Some((own(read.registry()), own(read.repository()), read.tag().map(own), read.digest().map(own)))
    }

    #[test]
    fn whatever_is_read_means_the_same_to_the_library() {
        let hex = "0123456789abcdef".repeat(4);
        let sha = format!("@sha256:{hex}");
        let (upper, short, other) = (
            format!("@sha256:{}", hex.to_uppercase()),
            format!("@sha256:{}", &hex[1..]),
            format!("@sha512:{hex}{hex}"),
        );
        let parts: [&[&str]; 6] = [
            &[
                "",
                "localhost",
                "index.docker.io",
                "docker.io",
                "a.b",
                "127.0.0.1",
                "Host",
                "A.b",
                "-a.b",
                "a..b",
                "a_b.c",
                "x",
                "ä.b",
            ],
            &["", ":5000", ":", ":x", ":99999"],
            &["", "/", "//"],
            &[
                "", "redis", "a/b", "a__b/c.d", "a--b", "a___b", "a._b", "a.", "-a", "A", "a/", "a//b",
                "a:b/c", "é",
            ],
            &["", ":1", ":v1.0-x_y", ":", ":.x", ":-", ":a:b", ":ü", ":a/b", " "],
            &["", &sha, &upper, &short, &other, "@", "@sha256:", "@x@y"],
        ];
        let mut read = 0;
        let mut choices = [0; 6];
        loop {
            let text: String = choices.iter().zip(parts).map(|(choice, part)| part[*choice]).collect();
            if let Some(plain) = parse(&text) {
                read += 1;
                let own = |text: &str| text.to_owned();
                let mut tag = plain.tag.map(own);
                if tag.is_none() && plain.digest.is_none() {
                    tag = Some("latest".to_owned());
                }
                let ours = (own(plain.registry), plain.repository.into_owned(), tag, plain.digest.map(own));
                assert_eq!(Some(ours), by_library(&text), "{text}");
            }
            let Some(at) = (0..6).find(|at| choices[*at] + 1 < parts[*at].len()) else { break };
            choices[at] += 1;
            choices[..at].fill(0);
        }
        assert!(read > 500, "{read}");
    }

    #[test]
    fn usual_references_are_plain() {
        let digest = format!("ghcr.io/a/b@sha256:{}", "0".repeat(64));
        for text in [
            "redis",
            "redis:7",
            "user/app",
            "localhost:5000/x",
            "127.0.0.1:5000/x/y:tag",
            "ghcr.io/a/b__c/d-e:v1.0",
            &digest,
        ] {
            assert!(parse(text).is_some(), "{text}");
        }
        for text in ["", "a b", "Host/x", "x@md5:abc", "a:b:c", "x@sha256:abc"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
