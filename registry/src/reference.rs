//! Image references: `[host[:port]/]repository[:tag][@digest]`.

mod name;
mod plain;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
pub(crate) use name::{api_host, split_port, valid_tag};
use name::{valid_host, valid_name};

/// A repository of a registry: where manifests and blobs live.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    host: String,
    name: String,
}

impl Repository {
    /// The repository `name` (for example `library/redis`) of the registry `host` (`host[:port]`).
    ///
    /// # Errors
    /// [`Error::InvalidReference`] if either is not what the distribution specification allows. Both become part
    /// of URLs and file names, so nothing else must get through.
    pub fn new(host: &str, name: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::InvalidReference {
            input: crate::redact::message(&format!("{host}/{name}")),
            reason: reason.to_owned(),
        };
        if !valid_host(host) {
            return Err(invalid("the registry must be `host` or `host:port`"));
        }
        if !valid_name(name) {
            return Err(invalid(
                "a repository is lower-case letters, digits, `.`, `_` and `-` in parts divided by `/`",
            ));
        }
        Ok(Self { host: host.to_owned(), name: name.to_owned() })
    }

    /// `host[:port]` as written in references; `docker.io` for Docker Hub.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name within the registry, for example `library/redis`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `host[:port]` that requests go to: `registry-1.docker.io` for `docker.io`, otherwise [`Self::host`].
    pub fn api_host(&self) -> &str {
        api_host(&self.host)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

/// What a manifest is asked for by: a tag, or the digest of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagOrDigest {
    /// A name that may be moved.
    Tag(String),
    /// The digest of the manifest's bytes.
    Digest(Digest),
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for TagOrDigest {
    type Err = Error;

    /// A digest if the text has a colon, otherwise a tag.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else if valid_tag(text) {
            Ok(Self::Tag(text.to_owned()))
        } else {
            Err(Error::InvalidReference {
                input: crate::redact::message(text),
                reason: "a tag is up to 128 letters, digits, `.`, `_` and `-`".to_owned(),
            })
        }
    }
}

impl From<Digest> for TagOrDigest {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<&Digest> for TagOrDigest {
    fn from(digest: &Digest) -> Self {
        Self::Digest(digest.clone())
    }
}

impl TryFrom<&str> for TagOrDigest {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&String> for TagOrDigest {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A parsed image reference, normalised as Docker does: `redis` is `docker.io/library/redis:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// A reference made of its parts. Without tag and digest it means the tag `latest`.
    pub fn new(repository: Repository, tag: Option<&str>, digest: Option<Digest>) -> Result<Self, Error> {
        let tag = match tag {
            Some(tag) if !valid_tag(tag) => {
                return Err(tag.parse::<TagOrDigest>().err().unwrap_or_else(|| Error::InvalidReference {
                    input: tag.to_owned(),
                    reason: "a tag has no colon".to_owned(),
                }));
            }
            Some(tag) => Some(tag.to_owned()),
            None if digest.is_none() => Some("latest".to_owned()),
            None => None,
        };
        Ok(Self { repository, tag, digest })
    }

    /// The repository, with its registry.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// `host[:port]` of the registry as written in references.
    pub fn registry(&self) -> &str {
        self.repository.host()
    }

    /// The tag, where there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the manifest is asked for by: the digest if there is one, because a tag may move.
    pub fn tag_or_digest(&self) -> TagOrDigest {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => TagOrDigest::Digest(digest.clone()),
            (None, tag) => TagOrDigest::Tag(tag.clone().unwrap_or_else(|| "latest".to_owned())),
        }
    }

    /// The same reference with `digest` (and its tag, if it has one).
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, Error> {
        Self::new(self.repository.clone(), Some(tag), None)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::InvalidReference {
            input: crate::redact::message(text),
            reason: reason.to_owned(),
        };
        if text.contains("://") {
            return Err(invalid("leave out the scheme, as in `registry.example/name:tag`"));
        }
        // The grammar of `oci_distribution` has no IPv6 addresses, so a stand-in takes their place.
        let (host, parsed) = match text.split_once(']') {
            Some((ip, rest)) if text.starts_with('[') => {
                let (port, path) =
                    rest.split_once('/').ok_or_else(|| invalid("no repository after the registry"))?;
                (Some(format!("{ip}]{port}")), format!("ipv6.invalid/{path}"))
            }
            _ => (None, text.to_owned()),
        };
        if let Some(plain) = plain::parse(&parsed) {
            let repository = Repository::new(host.as_deref().unwrap_or(plain.registry), &plain.repository)?;
            return Self::new(repository, plain.tag, plain.digest.map(str::parse).transpose()?);
        }
        let parsed =
            parsed.parse::<oci_distribution::Reference>().map_err(|error| invalid(&explain(text, &error)))?;
        let repository = Repository::new(host.as_deref().unwrap_or(parsed.registry()), parsed.repository())?;
        let digest = parsed.digest().map(str::parse).transpose()?;
        Self::new(repository, parsed.tag(), digest)
    }
}

fn explain(text: &str, error: &oci_distribution::ParseError) -> String {
    let hint = if text.is_empty() {
        "it is empty"
    } else if text.chars().any(char::is_whitespace) {
        "it contains white space"
    } else if text
        .split(['@', ':'])
        .next()
        .is_some_and(|name| name.contains(|c: char| c.is_ascii_uppercase()))
    {
        "repository names are lower case"
    } else if text.contains('@') && !text.contains("@sha256:") {
        "after `@` comes `sha256:` and 64 hex digits"
    } else {
        "expected `[registry[:port]/]name[:tag][@sha256:digest]`"
    };
    format!("{hint} ({error})")
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    #[test]
    fn parses_and_normalises() {
        let digest = Digest::of(b"x");
        let at = format!("127.0.0.1:5000/x:tag@{digest}");
        for (text, host, name, tag, dig) in [
            ("redis", "docker.io", "library/redis", Some("latest"), None),
            ("docker.io/redis:7", "docker.io", "library/redis", Some("7"), None),
            ("index.docker.io/library/redis", "docker.io", "library/redis", Some("latest"), None),
            ("user/app", "docker.io", "user/app", Some("latest"), None),
            ("localhost:5000/x", "localhost:5000", "x", Some("latest"), None),
            ("localhost/x", "localhost", "x", Some("latest"), None),
            ("[::1]:5000/a/b:1", "[::1]:5000", "a/b", Some("1"), None),
            ("ghcr.io/a/b__c/d-e:v1.0", "ghcr.io", "a/b__c/d-e", Some("v1.0"), None),
            (at.as_str(), "127.0.0.1:5000", "x", Some("tag"), Some(digest.clone())),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.registry(), host, "{text}");
            assert_eq!(reference.repository().name(), name, "{text}");
            assert_eq!(reference.tag(), tag, "{text}");
            assert_eq!(reference.digest(), dig.as_ref(), "{text}");
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference, "{text}");
        }
        let by_digest: Reference = format!("a/b@{digest}").parse().unwrap();
        assert_eq!(by_digest.tag(), None);
        assert_eq!(by_digest.tag_or_digest(), TagOrDigest::Digest(digest));
    }

    #[test]
    fn api_host_of_docker_hub() {
        let reference: Reference = "redis".parse().unwrap();
        assert_eq!(reference.repository().api_host(), "registry-1.docker.io");
    }

    #[test]
    fn errors_say_what_to_do() {
        for (text, words) in [
            ("", "empty"),
            ("https://ghcr.io/x", "scheme"),
            ("ghcr.io/Foo", "lower case"),
            ("a b", "white space"),
            ("x@sha256:abc", "expected"),
            ("x@md5:abc", "sha256:"),
            ("x:bad/tag:", "expected"),
            ("[::1]", "repository"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn repositories_cannot_smuggle_paths() {
        for (host, name) in [
            ("h", "../x"),
            ("h", "a/../b"),
            ("h", "a//b"),
            ("h", "/a"),
            ("h", "a?b"),
            ("h", "A"),
            ("h", ""),
            ("h/x", "a"),
            ("u:p@h", "a"),
            ("", "a"),
            ("h:0", "a"),
            ("h:99999", "a"),
            ("..", "a"),
            ("[x]", "a"),
        ] {
            assert!(Repository::new(host, name).is_err(), "{host} {name}");
        }
    }
}
