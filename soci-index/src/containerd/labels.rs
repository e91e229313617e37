//! Labels that containerd and its garbage collector understand.

use std::collections::{BTreeSet, HashMap};

use registry::{Descriptor, Digest, Repository};

use crate::manifest::IndexManifest;
use crate::oci::{ImageIndex, ImageManifest};

/// Labels by key.
pub type Labels = HashMap<String, String>;

/// Longest label that containerd accepts: key and value in bytes.
pub const MAX_LABEL: usize = 4096;

/// Prefix of labels whose value is content that is kept as long as what has the label.
pub const CONTENT_REF: &str = "containerd.io/gc.ref.content";
/// Prefix of labels whose value is a snapshot that is kept; a snapshotter's name follows.
pub const SNAPSHOT_REF: &str = "containerd.io/gc.ref.snapshot";
/// The digest of a layer's content when it is not compressed.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// The label by which an image keeps its SOCI index, under the reference's name.
pub const SOCI_INDEX: &str = "containerd.io/gc.ref.content.soci-index";

/// The label by which an image, or its manifest, keeps the SOCI index `digest`. Each index has one of its own, so that
/// none loses its protection to another platform's or a later one.
pub fn soci_index(digest: &Digest) -> String {
    format!("{SOCI_INDEX}.{}", &digest.hex()[..12])
}

/// The labels by which an image index keeps its manifests.
pub fn of_image_index(index: &ImageIndex) -> Labels {
    numbered("m", &index.manifests)
}

/// The labels by which an image manifest keeps its configuration and layers.
pub fn of_image_manifest(manifest: &ImageManifest) -> Labels {
    let mut labels = numbered("l", &manifest.layers);
    labels.insert(format!("{CONTENT_REF}.config"), manifest.config.digest.to_string());
    labels
}

/// The labels by which a SOCI index keeps its zTOCs and its config blob.
pub fn of_soci_index(manifest: &IndexManifest) -> Labels {
    let mut labels = numbered("ztoc", &manifest.blobs);
    labels.insert(format!("{CONTENT_REF}.config"), manifest.config().digest.to_string());
    labels
}

fn numbered(kind: &str, children: &[Descriptor]) -> Labels {
    let label =
        |(i, child): (usize, &Descriptor)| (format!("{CONTENT_REF}.{kind}.{i}"), child.digest.to_string());
    children.iter().enumerate().map(label).collect()
}

/// The label that says from which repository content can be fetched again, added to what the label says already;
/// `None` if it says so, or would become too long.
pub fn distribution_source(repository: &Repository, now: &Labels) -> Option<(String, String)> {
    let key = format!("containerd.io/distribution.source.{}", repository.host());
    let mut names: BTreeSet<&str> = now
        .get(&key)
        .map(|names| names.split(',').filter(|name| !name.is_empty()).collect())
        .unwrap_or_default();
    if !names.insert(repository.name()) {
        return None;
    }
    let value = names.into_iter().collect::<Vec<_>>().join(",");
    (key.len() + value.len() <= MAX_LABEL).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_added_up_to_the_limit() {
        let repository = Repository::new("docker.io", "library/redis").unwrap();
        let key = "containerd.io/distribution.source.docker.io".to_owned();
        let source =
            |now: &str| distribution_source(&repository, &Labels::from([(key.clone(), now.to_owned())]));
        assert_eq!(
            distribution_source(&repository, &Labels::new()),
            Some((key.clone(), "library/redis".into()))
        );
        assert_eq!(source("b/c,a/b"), Some((key.clone(), "a/b,b/c,library/redis".into())));
        assert_eq!(source("a/b,library/redis"), None);
        assert_eq!(source(&"x".repeat(MAX_LABEL - key.len() - 13)), None);
        assert!(source(&"x".repeat(MAX_LABEL - key.len() - 14)).is_some());
    }

    #[test]
    fn every_index_of_an_image_has_a_label_of_its_own() {
        let (one, two) = (soci_index(&Digest::of(b"1")), soci_index(&Digest::of(b"2")));
        assert_ne!(one, two);
        assert!(one.starts_with("containerd.io/gc.ref.content.soci-index."));
    }
}
