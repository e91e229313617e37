//! Image destinations as users write them, in the form of skopeo's transports.

use std::path::PathBuf;

use registry::Reference;

use super::error::DestinationError;
use super::layout::Listing;
use crate::source::{OTHER_TRANSPORTS, Selector, SourceError, SourceSpec};

/// A parsed image destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationSpec {
    /// `docker://REF`: a name in a registry.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Layout(PathBuf, Listing),
    /// `oci-archive:FILE[:TAG]`: an OCI image layout in an uncompressed tar file.
    Archive(PathBuf, Listing),
    /// `containerd:NAME`: a name in containerd.
    Containerd(String),
}

/// Where a source was found, which is where a destination without a transport belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    Registry,
    Layout(&'a PathBuf),
    Archive,
    Containerd,
}

impl DestinationSpec {
    /// Parses a destination. One without a transport is of the kind that `source` is, where a reference without a
    /// transport is in containerd if `in_containerd` says so.
    ///
    /// # Errors
    /// [`DestinationError::Spec`] if the text names no destination, a digest, or a registry's name without a tag.
    pub fn parse(text: &str, source: &SourceSpec, in_containerd: bool) -> Result<Self, DestinationError> {
        let error = |reason: String| DestinationError::Spec { given: crate::text::excerpt(text), reason };
        let place = match source {
            SourceSpec::Registry(_) if in_containerd => Place::Containerd,
            SourceSpec::Registry(_) => Place::Registry,
            SourceSpec::Layout(path, _) => Place::Layout(path),
            SourceSpec::Archive(..) => Place::Archive,
            SourceSpec::Containerd(_) => Place::Containerd,
        };
        let of_source = |text: &str| {
            text.parse::<SourceSpec>().map_err(|refused| match refused {
                SourceError::Spec { reason, .. } => error(reason),
                other => error(other.to_string()),
            })
        };
        if let Some((transport, _)) = text.split_once(':')
            && OTHER_TRANSPORTS.contains(&transport)
        {
            return Err(error(format!(
                "the transport {transport}: is not supported; write oci:DIR:TAG, and copy that with skopeo"
            )));
        }
        let transport = ["docker://", "oci:", "oci-archive:", "containerd:"]
            .into_iter()
            .any(|transport| text.starts_with(transport));
        let spec = match (transport, place) {
            (true, _) => of_source(text)?,
            (false, Place::Registry | Place::Containerd) => match of_source(text)? {
                SourceSpec::Registry(reference) if place == Place::Containerd => {
                    SourceSpec::Containerd(reference.to_string())
                }
                spec => spec,
            },
            (false, Place::Layout(path)) => SourceSpec::Layout(path.clone(), Selector::Name(text.to_owned())),
            (false, Place::Archive) => {
                return Err(error(format!(
                    "an archive holds one image; write oci-archive:FILE:{text} for another archive, or oci:DIR:{text}"
                )));
            }
        };
        let listing = |selector: Selector| match selector {
            Selector::Only => Ok(Listing::Unnamed),
            Selector::Name(name) => Ok(Listing::Named(name)),
            Selector::Position(_) => Err(error("a position cannot be written to; write a name".into())),
        };
        Ok(match spec {
            SourceSpec::Registry(reference) => {
                require_tag(text).map_err(error)?;
                Self::Registry(reference)
            }
            SourceSpec::Layout(path, selector) => Self::Layout(path, listing(selector)?),
            SourceSpec::Archive(path, selector) => Self::Archive(path, listing(selector)?),
            SourceSpec::Containerd(name) => {
                if !transport {
                    require_tag(text).map_err(error)?;
                }
                Self::Containerd(name)
            }
        })
    }

    /// The same destination with an absolute path.
    #[must_use]
    pub fn absolute(self) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        match self {
            Self::Layout(path, listing) => Self::Layout(absolute(path), listing),
            Self::Archive(path, listing) => Self::Archive(absolute(path), listing),
            other => other,
        }
    }
}

/// A name that an image is converted to has a tag that is written out, so that nobody moves `latest` by accident, and no
/// digest, which only the result can have.
fn require_tag(text: &str) -> Result<(), String> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') && !name.contains('@') {
        return Ok(());
    }
    Err("the destination image must be a tagged ref of the form \"registry/repository:tag\"".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, source: &str, in_containerd: bool) -> Result<DestinationSpec, String> {
        DestinationSpec::parse(text, &source.parse().unwrap(), in_containerd)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_plain_destination_goes_where_the_source_came_from() {
        let registry = DestinationSpec::Registry("r.io/app:v2".parse().unwrap());
        assert_eq!(parse("r.io/app:v2", "r.io/app:v1", false), Ok(registry.clone()));
        assert_eq!(parse("r.io/app:v2", "docker://r.io/app:v1", false), Ok(registry.clone()));
        let containerd = DestinationSpec::Containerd("r.io/app:v2".into());
        assert_eq!(parse("r.io/app:v2", "r.io/app:v1", true), Ok(containerd.clone()));
        assert_eq!(parse("r.io/app:v2", "containerd:x", false), Ok(containerd));
        assert_eq!(
            parse("redis:7", "containerd:x", false),
            Ok(DestinationSpec::Containerd("docker.io/library/redis:7".into()))
        );
        let layout = DestinationSpec::Layout("a".into(), Listing::Named("v2".into()));
        assert_eq!(parse("v2", "oci:a:v1", false), Ok(layout));
        assert!(parse("v2", "oci-archive:a.tar", false).unwrap_err().contains("oci-archive:FILE:v2"));
    }

    #[test]
    fn a_transport_decides() {
        let registry = DestinationSpec::Registry("r.io/app:v2".parse().unwrap());
        assert_eq!(parse("docker://r.io/app:v2", "r.io/app:v1", true), Ok(registry));
        let archive = DestinationSpec::Archive("b.tar".into(), Listing::Unnamed);
        assert_eq!(parse("oci-archive:b.tar", "r.io/app:v1", false), Ok(archive));
        let containerd = DestinationSpec::Containerd("any name".into());
        assert_eq!(parse("containerd:any name", "oci:a", false), Ok(containerd));
    }

    #[test]
    fn a_destination_has_a_tag_and_no_digest() {
        let digest = "r.io/app:v1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in ["r.io:5000/app", "app", digest, "docker://r.io/app"] {
            for in_containerd in [false, true] {
                let error = parse(text, "x", in_containerd).unwrap_err();
                assert!(error.contains("must be a tagged ref"), "{text}: {error}");
            }
        }
        assert!(parse("oci:a:@0", "x", false).unwrap_err().contains("position"));
        assert!(parse("docker-archive:x", "x", false).is_err());
    }
}
