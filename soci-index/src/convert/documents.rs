//! All manifests and indexes of an image, read from its source.

use std::collections::HashMap;

use registry::{Descriptor, Digest};

use crate::document::{Document, DocumentKind};
use crate::image::{MAX_DEPTH, MAX_MANIFESTS, PlatformChoice};
use crate::oci::ImageManifest;
use crate::platform::Platform;
use crate::source::{ImageSource, SourceError};

/// More bytes than the documents of any image have: 1,000 manifests of 40 layers are 6 MiB. All are in memory at once.
const MAX_BYTES: u64 = 64 << 20;

/// The documents of an image.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) root: Descriptor,
    by_digest: HashMap<Digest, Document>,
    /// Listed by an index of the image, and not in the source.
    pub(super) missing: Vec<Descriptor>,
}

impl Documents {
    /// Reads all that `root` leads to. What the source does not have is noted, not an error.
    ///
    /// containerd 2 keeps the manifests of platforms that were never pulled. So a platform that `choice` does not ask for and
    /// whose blobs are not there is noted, too.
    pub(super) async fn read(
        source: &dyn ImageSource,
        root: Descriptor,
        choice: &PlatformChoice,
    ) -> Result<Self, SourceError> {
        let mut documents = Self { root: root.clone(), by_digest: HashMap::new(), missing: Vec::new() };
        let mut bytes = 0;
        let mut pending = vec![(root, 0)];
        let mut depths = HashMap::new();
        while let Some((descriptor, depth)) = pending.pop() {
            let bad = |reason: String| SourceError::Layout { path: source.name().into(), reason };
            if depth > MAX_DEPTH {
                return Err(bad(format!("image indexes are nested more than {MAX_DEPTH} deep")));
            }
            if let Some(known) = documents.by_digest.get(&descriptor.digest) {
                // Listed again, maybe from deeper within.
                let seen = depths.entry(descriptor.digest.clone()).or_insert(depth);
                if let DocumentKind::Index(index) = &known.kind
                    && depth > *seen
                {
                    *seen = depth;
                    pending.extend(index.manifests.iter().map(|entry| (entry.clone(), depth + 1)));
                }
                continue;
            }
            let json = match source.manifest(&descriptor).await {
                Err(error) if depth > 0 && error.is_missing() => {
                    documents.missing.push(descriptor);
                    continue;
                }
                other => other?,
            };
            bytes += json.len() as u64;
            if bytes > MAX_BYTES || documents.by_digest.len() + documents.missing.len() >= MAX_MANIFESTS {
                return Err(bad(format!(
                    "it has more than {MAX_MANIFESTS} manifests, or more than {MAX_BYTES} bytes of them"
                )));
            }
            let document = Document::parse(&descriptor, json)
                .map_err(|error| SourceError::document(&descriptor, error))?;
            if let DocumentKind::Image(manifest) = &document.kind
                && depth > 0
                && is_of_another_platform(&descriptor, choice)
                && lacks_content(source, manifest).await?
            {
                documents.missing.push(descriptor);
                continue;
            }
            if let DocumentKind::Index(index) = &document.kind {
                pending.extend(index.manifests.iter().rev().map(|entry| (entry.clone(), depth + 1)));
            }
            depths.insert(descriptor.digest.clone(), depth);
            documents.by_digest.insert(descriptor.digest, document);
        }
        Ok(documents)
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Document> {
        self.by_digest.get(digest)
    }
}

/// Whether an image manifest is surely for no platform that is asked for.
fn is_of_another_platform(descriptor: &Descriptor, choice: &PlatformChoice) -> bool {
    let Some(platform) = descriptor.platform.as_ref().map(Platform::from) else { return false };
    // Which variant is taken is found out later.
    let could_be = |wanted: &Platform| wanted.has_architecture_of(&platform);
    match choice {
        PlatformChoice::Host => !could_be(&Platform::host()),
        PlatformChoice::These(wanted) => !wanted.iter().any(could_be),
        PlatformChoice::All => false,
    }
}

async fn lacks_content(source: &dyn ImageSource, manifest: &ImageManifest) -> Result<bool, SourceError> {
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if source.lacks(blob).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
