//! Image sources as users write them, in the form of skopeo's transports.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use registry::Reference;

use super::error::SourceError;

/// A parsed image source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// `REF` or `docker://REF`: an image in a registry.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Layout(PathBuf, Selector),
    /// `oci-archive:FILE[:TAG]`: an OCI image layout in an uncompressed tar file.
    Archive(PathBuf, Selector),
    /// `containerd:NAME`: an image in containerd.
    Containerd(String),
}

/// Which image of a layout is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The only one.
    Only,
    /// The one with this name (`org.opencontainers.image.ref.name` or `io.containerd.image.name`).
    Name(String),
    /// The entry of `index.json` at this position, counted from 0 (`oci:DIR:@2`, as in skopeo).
    Position(usize),
}

/// Transports of skopeo that hold images without an OCI layout's digests, or that need a service.
pub(crate) const OTHER_TRANSPORTS: [&str; 7] =
    ["containers-storage", "dir", "docker-archive", "docker-daemon", "ostree", "sif", "tarball"];

/// More bytes than a reference may have.
const MAX_NAME: usize = 1024;

impl FromStr for SourceSpec {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let error = |reason: String| SourceError::Spec { given: crate::text::excerpt(text), reason };
        let local = |rest: &str, form: &str| -> Result<(PathBuf, Selector), SourceError> {
            // skopeo's rule: the first colon ends the path.
            let (path, image) = rest.split_once(':').unwrap_or((rest, ""));
            if path.is_empty() {
                return Err(error(format!("the path is missing; write {form}")));
            }
            let selector = match image.strip_prefix('@') {
                Some(position) => Selector::Position(
                    position
                        .parse()
                        .map_err(|_| error(format!("@{position} is not a position in index.json")))?,
                ),
                None if image.is_empty() => Selector::Only,
                None => Selector::Name(image.to_owned()),
            };
            Ok((PathBuf::from(path), selector))
        };
        match text.split_once(':') {
            Some(("oci", rest)) => {
                let (path, selector) = local(rest, "oci:DIR[:TAG]")?;
                Ok(Self::Layout(path, selector))
            }
            Some(("oci-archive", rest)) => {
                let (path, selector) = local(rest, "oci-archive:FILE[:TAG]")?;
                Ok(Self::Archive(path, selector))
            }
            Some(("docker", rest)) => match rest.strip_prefix("//") {
                Some(reference) => Ok(Self::Registry(reference.parse()?)),
                None => Err(error(format!("write docker://{rest} for an image in a registry"))),
            },
            Some(("containerd", "")) => Err(error("the name is missing; write containerd:NAME".into())),
            Some(("containerd", name)) if name.len() <= MAX_NAME && !name.contains(char::is_control) => {
                Ok(Self::Containerd(name.to_owned()))
            }
            Some(("containerd", _)) => Err(error("this cannot be the name of an image".into())),
            Some((transport, _)) if OTHER_TRANSPORTS.contains(&transport) => Err(error(format!(
                "the transport {transport}: is not supported; `skopeo copy {text} oci:DIR:TAG` makes a layout that is"
            ))),
            _ => Ok(Self::Registry(text.parse()?)),
        }
    }
}

impl SourceSpec {
    /// The same source with an absolute path, so that what is recorded means the same from every directory.
    #[must_use]
    pub fn absolute(self) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        match self {
            Self::Registry(reference) => Self::Registry(reference),
            Self::Layout(path, selector) => Self::Layout(absolute(path), selector),
            Self::Archive(path, selector) => Self::Archive(absolute(path), selector),
            Self::Containerd(name) => Self::Containerd(name),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{reference}"),
            Self::Layout(path, selector) => write!(f, "oci:{}{selector}", path.display()),
            Self::Archive(path, selector) => write!(f, "oci-archive:{}{selector}", path.display()),
            Self::Containerd(name) => write!(f, "containerd:{name}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => Ok(()),
            Self::Name(name) => write!(f, ":{name}"),
            Self::Position(position) => write!(f, ":@{position}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_as_for_skopeo() {
        for (text, shown) in [
            ("redis", "docker.io/library/redis:latest"),
            ("docker://quay.io/a/b:1", "quay.io/a/b:1"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("oci:/tmp/x", "oci:/tmp/x"),
            ("oci:/tmp/x:v1", "oci:/tmp/x:v1"),
            ("oci:/tmp/x:docker.io/a/b:v1", "oci:/tmp/x:docker.io/a/b:v1"),
            ("oci:/tmp/x:@3", "oci:/tmp/x:@3"),
            ("oci-archive:/tmp/x.tar:v1", "oci-archive:/tmp/x.tar:v1"),
            ("containerd:docker.io/library/redis:7", "containerd:docker.io/library/redis:7"),
        ] {
            assert_eq!(text.parse::<SourceSpec>().unwrap().to_string(), shown);
        }
        let relative: SourceSpec = "oci:x:v1".parse().unwrap();
        assert!(relative.absolute().to_string().starts_with("oci:/"));
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, hint) in [
            ("oci:", "oci:DIR"),
            ("oci-archive::tag", "oci-archive:FILE"),
            ("oci:x:@y", "not a position"),
            ("docker:redis", "docker://redis"),
            ("docker-archive:x.tar", "skopeo copy"),
            ("containerd:", "containerd:NAME"),
            ("containerd:a\u{1b}b", "cannot be the name"),
            ("UPPER/x:y:z", "UPPER"),
        ] {
            let error = text.parse::<SourceSpec>().unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }
}
