//! Which index of an image is verified: the one that a snapshotter would use, then one of the artifact store.

use async_trait::async_trait;
use bytes::Bytes;
use registry::{Descriptor, Digest};

use super::report::Origin;
use super::subject::{Subject, VerifyError};
use crate::discover::{self, DiscoverError, FoundIndex, Nearby, Wanted};
use crate::manifest::{INDEX_DIGEST, IndexVersion};
use crate::oci::{self, ImageIndex, ImageManifest, MAX_MANIFEST_SIZE};
use crate::store::{Store, StoreError};

/// What the store has need not be fetched again.
struct InStore<'a>(&'a Store);

#[async_trait]
impl Nearby for InStore<'_> {
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.0.get(digest, limit).await.ok()
    }
}

pub(super) async fn locate(
    subject: &Subject<'_>,
    manifest: &ImageManifest,
    explicit: Option<&Digest>,
) -> Result<(FoundIndex, Origin), VerifyError> {
    let image = &subject.image.descriptor;
    if let Some((client, repository)) = subject.registry {
        let wanted = Wanted::explicit(explicit.cloned());
        let nearby = InStore(subject.store);
        let found = discover::find_index(client, repository, image, manifest, &wanted, &nearby).await?;
        if let Some(found) = found {
            return Ok((found, Origin::Image));
        }
    } else if explicit.is_none()
        && let Some(found) = bound(subject, manifest).await
    {
        return Ok((found, Origin::Image));
    }
    let missing = |error| match (error, explicit) {
        (DiscoverError::Store(StoreError::Missing(_)), Some(digest)) => {
            VerifyError::NoSuchIndex(digest.clone())
        }
        (error, _) => error.into(),
    };
    match discover::find_local_index(subject.store, image, manifest, explicit).await.map_err(missing)? {
        Some(found) => Ok((found, Origin::Store)),
        None => Err(VerifyError::NoIndex(image.digest.clone())),
    }
}

/// The version 2 index that the image names, where it is not in a registry: listed in its image index, or in the store.
async fn bound(subject: &Subject<'_>, manifest: &ImageManifest) -> Option<FoundIndex> {
    let digest: Digest = manifest.annotations.get(INDEX_DIGEST)?.parse().ok()?;
    let bytes = match listed(subject, &digest).await {
        Some(entry) => subject.source.small_blob(&entry, MAX_MANIFEST_SIZE).await.ok(),
        None => None,
    };
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => subject.store.get(&digest, MAX_MANIFEST_SIZE).await.ok()?,
    };
    let found = FoundIndex::parse(digest, bytes, &subject.image.descriptor, manifest)
        .inspect_err(|error| tracing::warn!(%error, "the image names a broken index; looking for others"))
        .ok()?;
    (found.manifest.version == IndexVersion::V2).then_some(found)
}

/// The entry of the image's own index for a SOCI index.
async fn listed(subject: &Subject<'_>, digest: &Digest) -> Option<Descriptor> {
    if !oci::is_index(subject.root) {
        return None;
    }
    let json = subject.source.manifest(subject.root).await.ok()?;
    ImageIndex::parse(&json).ok()?.manifests.into_iter().find(|entry| entry.digest == *digest)
}
