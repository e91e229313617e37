//! Finding the SOCI index of an image.
//!
//! The order:
//!
//! 1. a digest that the user gives is taken, whatever it is bound to;
//! 2. a version 2 index, which the image manifest itself names in the annotation `com.amazon.soci.index-digest`: the
//!    image's digest covers the annotation, so nobody but the image's author can have put it there;
//! 3. of the version 1 indexes among the image's referrers, those whose `subject` is this image manifest; of these the
//!    one that covers most layers; of equals one with recorded prefetch artifacts, the latest; of equals the one with the
//!    lowest digest, so that every node picks the same.
//!
//! A version 2 index that is named but missing or broken, and referrers that are, do not stop the search.

use std::cmp::Reverse;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use registry::{Client, Descriptor, Digest, Repository};

use crate::manifest::{INDEX_DIGEST, INDEX_V1, IndexManifest, IndexVersion};
use crate::oci::{DocumentError, ImageManifest};
use crate::store::{ArtifactKind, Store, StoreError};

/// Referrers that are looked at. Anybody who may push to the repository can add some, and each costs a request.
const MAX_CANDIDATES: usize = 32;
/// Referrers that are fetched at the same time.
const PARALLEL: usize = 8;

/// An index that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundIndex {
    /// Digest of the index manifest.
    pub digest: Digest,
    /// The index manifest.
    pub manifest: IndexManifest,
    /// Its bytes, which have that digest.
    pub bytes: Bytes,
    /// How many of the image's layers have a zTOC in it.
    pub covered: usize,
    /// Whether it says that it belongs to this image. False only for an index that was asked for by its digest.
    pub bound: bool,
}

/// Which index is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// This one and no other, whatever its version.
    pub explicit: Option<Digest>,
    /// Indexes of version 1, found as referrers of the image.
    pub v1: bool,
    /// Indexes of version 2, which the image names itself.
    pub v2: bool,
}

impl Default for Wanted {
    /// The best there is, of any version.
    fn default() -> Self {
        Self { explicit: None, v1: true, v2: true }
    }
}

impl Wanted {
    /// The index with this digest, or the best there is.
    #[must_use]
    pub fn explicit(digest: Option<Digest>) -> Self {
        Self { explicit: digest, ..Self::default() }
    }
}

/// Content that is at hand, so that the registry need not be asked for it.
#[async_trait]
pub trait Nearby: Sync {
    /// The content with this digest, verified and at most `limit` bytes long, if it is there.
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes>;

    /// The registry is going to be asked which indexes the image has.
    fn searching(&self) {}
}

/// Nothing is at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingNearby;

#[async_trait]
impl Nearby for NothingNearby {
    async fn get(&self, _digest: &Digest, _limit: u64) -> Option<Bytes> {
        None
    }
}

/// Why no index was found, when there may be one.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The registry could not be asked.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The local store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was asked for by its digest is no index.
    #[error("{digest} is not a SOCI index: {source}")]
    NotAnIndex {
        /// The digest asked for.
        digest: Digest,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// The index asked for by its digest has no zTOC for any layer of the image.
    #[error("SOCI index {0} has no zTOC for any layer of this image")]
    Unrelated(Digest),
}

/// Finds the index of an image in its registry.
///
/// `image` is the descriptor of the image *manifest* (not of an image index), and `manifest` its content. `nearby` is asked
/// for each index before the registry; which indexes there are only the registry knows.
///
/// # Errors
/// When the registry cannot be asked, or the index wanted explicitly is missing, broken or of another image.
pub async fn find_index(
    client: &Client,
    repository: &Repository,
    image: &Descriptor,
    manifest: &ImageManifest,
    wanted: &Wanted,
    nearby: &dyn Nearby,
) -> Result<Option<FoundIndex>, DiscoverError> {
    let fetch = |digest: Digest| async move {
        let bytes = match nearby.get(&digest, crate::oci::MAX_MANIFEST_SIZE).await {
            Some(bytes) => bytes,
            None => client.manifest_in(repository, &digest).await?.bytes,
        };
        Ok::<_, registry::Error>(FoundIndex::parse(digest, bytes, image, manifest))
    };
    if let Some(digest) = &wanted.explicit {
        tracing::debug!(%digest, "using provided soci index digest");
        return FoundIndex::explicit(digest, fetch(digest.clone()).await?);
    }
    if !wanted.v2 {
        tracing::debug!("soci v2 is disabled");
    } else if let Some(digest) = bound_v2(manifest) {
        match fetch(digest.clone()).await {
            Ok(Ok(found)) if found.manifest.version == IndexVersion::V2 && found.covered > 0 => {
                tracing::debug!(%digest, "using soci v2 index annotation");
                return Ok(Some(FoundIndex { bound: true, ..found }));
            }
            Ok(Ok(_)) => {
                tracing::warn!(%digest, "the image names an index that is not its own; looking for others")
            }
            Ok(Err(error)) => {
                tracing::warn!(%digest, %error, "the image names a broken index; looking for others")
            }
            Err(error) if error.is_not_found() => {
                tracing::warn!(%digest, "the image names an index that the registry does not have; looking for others");
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !wanted.v1 {
        tracing::debug!("soci v1 is disabled");
        return Ok(None);
    }
    tracing::debug!("using soci v1 index via referrers API");
    nearby.searching();
    let mut digests: Vec<Digest> = client
        .referrers(repository, &image.digest, Some(INDEX_V1))
        .await?
        .into_iter()
        .map(|referrer| referrer.digest)
        .collect();
    digests.sort();
    digests.dedup();
    if digests.len() > MAX_CANDIDATES {
        tracing::warn!(
            referrers = digests.len(),
            "only the first {MAX_CANDIDATES} SOCI indexes are looked at"
        );
        digests.truncate(MAX_CANDIDATES);
    }
    let mut fetched = futures::stream::iter(digests).map(fetch).buffer_unordered(PARALLEL);
    let mut candidates = Vec::new();
    let mut failed = None;
    while let Some(result) = fetched.next().await {
        match result {
            Ok(Ok(found)) => candidates.push(found),
            Ok(Err(error)) => tracing::debug!(%error, "a referrer is no SOCI index"),
            Err(error) => {
                tracing::debug!(%error, "a referrer cannot be read");
                failed = failed.or(Some(error).filter(|error| !error.is_not_found()));
            }
        }
    }
    match (best(candidates), failed) {
        (Some(found), _) => Ok(Some(found)),
        // There may be an index behind the failure.
        (None, Some(error)) => Err(error.into()),
        (None, None) => Ok(None),
    }
}

/// Finds the index of an image in the local store, by the rules for version 1 indexes.
///
/// # Errors
/// When the store cannot be read, or the index `explicit` is missing, broken or of another image.
pub async fn find_local_index(
    store: &Store,
    image: &Descriptor,
    manifest: &ImageManifest,
    explicit: Option<&Digest>,
) -> Result<Option<FoundIndex>, DiscoverError> {
    let fetch = |digest: Digest| async move {
        let bytes = store.get(&digest, crate::oci::MAX_MANIFEST_SIZE).await?;
        Ok::<_, StoreError>(FoundIndex::parse(digest, bytes, image, manifest))
    };
    if let Some(digest) = explicit {
        return FoundIndex::explicit(digest, fetch(digest.clone()).await?);
    }
    let mut candidates = Vec::new();
    for record in store.records().await? {
        if record.kind == ArtifactKind::Index
            && record.oci_digest == image.digest
            && let Ok(Ok(found)) = fetch(record.digest).await
        {
            candidates.push(found);
        }
    }
    Ok(best(candidates))
}

/// The version 2 index that the image manifest names.
fn bound_v2(manifest: &ImageManifest) -> Option<Digest> {
    tracing::debug!("checking for soci v2 index annotation");
    let text = manifest.annotations.get(INDEX_DIGEST)?;
    let digest = text.parse().ok();
    if digest.is_none() {
        tracing::warn!(annotation = %crate::text::excerpt(text), "the image's {INDEX_DIGEST} is not a digest");
    }
    digest
}

/// The version 1 index that covers most layers; of equals the one with the latest recording, and then the one with the
/// lowest digest.
fn best(candidates: Vec<FoundIndex>) -> Option<FoundIndex> {
    let rank = |found: &FoundIndex| Reverse((found.covered, found.manifest.recorded()));
    candidates
        .into_iter()
        .filter(|found| found.bound && found.covered > 0 && found.manifest.version == IndexVersion::V1)
        .min_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.digest.cmp(&b.digest)))
}

impl FoundIndex {
    pub(crate) fn parse(
        digest: Digest,
        bytes: Bytes,
        image: &Descriptor,
        manifest: &ImageManifest,
    ) -> Result<Self, DiscoverError> {
        let index = IndexManifest::parse(&bytes)
            .map_err(|source| DiscoverError::NotAnIndex { digest: digest.clone(), source })?;
        let covered = manifest.layers.iter().filter(|layer| index.ztoc_of(&layer.digest).is_some()).count();
        let bound = match index.version {
            IndexVersion::V1 => index.subject.as_ref().is_some_and(|subject| subject.digest == image.digest),
            IndexVersion::V2 => bound_v2(manifest).is_some_and(|named| named == digest),
        };
        Ok(Self { digest, manifest: index, bytes, covered, bound })
    }

    fn explicit(digest: &Digest, parsed: Result<Self, DiscoverError>) -> Result<Option<Self>, DiscoverError> {
        let found = parsed?;
        if found.covered == 0 {
            return Err(DiscoverError::Unrelated(digest.clone()));
        }
        if !found.bound {
            tracing::warn!(%digest, "the index asked for is not bound to this image");
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{IMAGE_CONFIG, IMAGE_MANIFEST};

    fn image() -> (Descriptor, ImageManifest) {
        let layers = [b"a", b"b", b"c"].iter().map(|content| Descriptor::of("l", *content)).collect();
        let manifest = ImageManifest {
            media_type: IMAGE_MANIFEST.into(),
            artifact_type: String::new(),
            config: Descriptor::of(IMAGE_CONFIG, b"{}"),
            layers,
            subject: None,
            annotations: Default::default(),
        };
        (Descriptor::of(IMAGE_MANIFEST, b"image"), manifest)
    }

    fn candidate(layers: usize, span_size: u64, subject: &Descriptor) -> FoundIndex {
        let (image, manifest) = image();
        let ztocs = manifest.layers[..layers]
            .iter()
            .map(|layer| IndexManifest::ztoc_descriptor(Digest::of(b"z"), 1, layer, span_size, false))
            .collect();
        let bytes = IndexManifest::new(IndexVersion::V1, ztocs, Some(subject), "t").encode();
        FoundIndex::parse(Digest::of(&bytes), bytes, &image, &manifest).unwrap()
    }

    #[test]
    fn most_layers_win_then_the_lowest_digest() {
        let (image, _) = image();
        let stranger = Descriptor::of(IMAGE_MANIFEST, b"stranger");
        let full: Vec<FoundIndex> = (1..5).map(|span_size| candidate(2, span_size, &image)).collect();
        let lowest = full.iter().map(|found| found.digest.clone()).min().unwrap();
        let mut all = vec![candidate(1, 9, &image), candidate(3, 9, &stranger), candidate(0, 9, &image)];
        all.extend(full);
        assert_eq!(best(all.clone()).unwrap().digest, lowest);
        all.reverse();
        assert_eq!(best(all).unwrap().digest, lowest);
        assert_eq!(best(vec![candidate(3, 9, &stranger), candidate(0, 9, &image)]), None);
    }

    /// Otherwise what `soci prefetch push` published might never be used.
    #[test]
    fn of_equal_indexes_the_latest_recording_wins() {
        let (image, image_manifest) = image();
        let plain = candidate(2, 1, &image);
        let recorded = |seconds: &str, layers| {
            let mut manifest = candidate(layers, 1, &image).manifest;
            manifest.annotations.insert(crate::manifest::RECORDED.into(), seconds.into());
            let bytes = manifest.encode();
            FoundIndex::parse(Digest::of(&bytes), bytes, &image, &image_manifest).unwrap()
        };
        let (old, new, junk) = (recorded("99", 2), recorded("100", 2), recorded("-1", 2));
        for at in 0..4 {
            let mut all = vec![old.clone(), plain.clone(), new.clone(), junk.clone()];
            all.rotate_left(at);
            assert_eq!(best(all).unwrap().digest, new.digest);
        }
        // More layers are worth more.
        let full = candidate(3, 1, &image);
        assert_eq!(best(vec![new, full.clone()]).unwrap().digest, full.digest);
        let lowest = plain.digest.clone().min(junk.digest.clone());
        assert_eq!(best(vec![plain, junk]).unwrap().digest, lowest);
    }

    #[test]
    fn an_explicit_index_has_to_cover_something() {
        let (image, _) = image();
        let stranger = Descriptor::of(IMAGE_MANIFEST, b"stranger");
        let found = candidate(1, 9, &stranger);
        let digest = found.digest.clone();
        assert!(!FoundIndex::explicit(&digest, Ok(found)).unwrap().unwrap().bound);
        assert!(FoundIndex::explicit(&digest, Ok(candidate(0, 9, &image))).is_err());
    }
}
