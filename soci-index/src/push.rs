//! Pushing an index from the store to the registry that has its image.
//!
//! The parts go first, the index manifest last: nobody ever sees an index whose zTOCs are missing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::{StreamExt, TryStreamExt};
use registry::{Client, Descriptor, Digest, Repository};

use crate::manifest::{INDEX_V1, IndexVersion};
use crate::oci::{IMAGE_MANIFEST, MAX_MANIFEST_SIZE};
use crate::store::{ArtifactKind, Record, Store, StoreError};

/// Blobs uploaded at the same time unless the user says otherwise.
pub const DEFAULT_CONCURRENT_UPLOADS: usize = 3;

/// What to do when the registry has an index for the image already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExistingIndex {
    /// Say so and push.
    #[default]
    Warn,
    /// Say so and do not push.
    Skip,
    /// Push without asking.
    Allow,
}

/// How to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOptions {
    /// What to do when there is an index already.
    pub existing: ExistingIndex,
    /// Blobs uploaded at the same time.
    pub concurrent_uploads: usize,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { existing: ExistingIndex::default(), concurrent_uploads: DEFAULT_CONCURRENT_UPLOADS }
    }
}

/// Receives the events of a push.
pub trait PushProgress: Send + Sync {
    /// Something happened.
    fn event(&self, event: PushEvent<'_>);
}

/// What happened during a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent<'a> {
    /// The registry is asked for indexes of the image.
    CheckingExisting,
    /// It has some.
    Existing {
        /// These.
        indexes: &'a [Descriptor],
        /// Whether nothing is pushed for that reason.
        skip: bool,
    },
    /// This index is pushed now.
    PushingIndex(&'a Digest),
    /// An artifact of the index is not in the registry and goes there now.
    Pushing(&'a Digest),
    /// It has arrived.
    Pushed(&'a Digest),
    /// It was there already.
    Skipped(&'a Digest),
}

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The registry has the index now.
    Done,
    /// The registry had another one, and [`ExistingIndex::Skip`] was asked for.
    Skipped,
}

/// Why an index was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry refused or could not be reached.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The store does not have what is to be pushed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no version 1 index for the image.
    #[error("no SOCI index for image manifest {0} in the artifact store")]
    NoIndex(Digest),
    /// The registry does not have the image.
    #[error(
        "{repository} does not have the image manifest {image} that the index belongs to; push the image first"
    )]
    NoImage {
        /// The repository.
        repository: String,
        /// The image manifest.
        image: Digest,
    },
    /// A version 2 index belongs into its image and cannot be pushed alone.
    #[error("SOCI index {0} is of version 2: it is pushed together with its image")]
    Version2(Digest),
}

/// The newest version 1 index among `records` that was built for the image manifest `image`, and whether there are
/// version 2 ones too.
pub fn newest_index<'a>(records: &'a [Record], image: &Digest) -> (Option<&'a Record>, bool) {
    let of_image = |record: &&Record| record.kind == ArtifactKind::Index && record.oci_digest == *image;
    let newest = records
        .iter()
        .filter(of_image)
        .filter(|record| record.artifact_type == INDEX_V1)
        .max_by_key(|record| (record.created_at, record.created_at_ns, record.digest.clone()));
    let v2 = records.iter().filter(of_image).any(|record| record.artifact_type != INDEX_V1);
    (newest, v2)
}

/// Pushes the index `digest` from `store` to `repository`.
///
/// # Errors
/// When the store lacks a part of it, the registry lacks the image, or refuses; see [`PushError`].
pub async fn push_index(
    client: &Client,
    repository: &Repository,
    store: &Store,
    digest: &Digest,
    options: &PushOptions,
    progress: &dyn PushProgress,
) -> Result<Pushed, PushError> {
    let manifest = store.index(digest).await?;
    let subject = match (manifest.version, &manifest.subject) {
        (IndexVersion::V1, Some(subject)) => subject,
        _ => return Err(PushError::Version2(digest.clone())),
    };
    if options.existing != ExistingIndex::Allow {
        progress.event(PushEvent::CheckingExisting);
        let existing = client.referrers(repository, &subject.digest, Some(INDEX_V1)).await?;
        if !existing.is_empty() {
            let skip = options.existing == ExistingIndex::Skip;
            progress.event(PushEvent::Existing { indexes: &existing, skip });
            if skip {
                return Ok(Pushed::Skipped);
            }
        }
    }
    progress.event(PushEvent::PushingIndex(digest));
    if !client.manifest_exists(repository, &subject.digest).await? {
        return Err(PushError::NoImage { repository: repository.to_string(), image: subject.digest.clone() });
    }

    // The bytes of the store, which another program may have written in another form than ours.
    let bytes = store.get(digest, MAX_MANIFEST_SIZE).await?;
    let mut descriptor = Descriptor::of(IMAGE_MANIFEST, &bytes);
    descriptor.artifact_type = Some(manifest.version.media_type().to_owned());
    descriptor.annotations.clone_from(&manifest.annotations);

    let mut seen = HashSet::new();
    let config = manifest.config();
    let blobs: Vec<&Descriptor> =
        manifest.blobs.iter().chain([&config]).filter(|blob| seen.insert(&blob.digest)).collect();
    futures::stream::iter(blobs)
        .map(|blob| push_blob(client, repository, store, blob, progress))
        .buffer_unordered(options.concurrent_uploads.max(1))
        .try_collect::<()>()
        .await?;

    let there = client.manifest_exists(repository, digest).await?;
    let listed = there
        && client
            .referrers(repository, &subject.digest, Some(INDEX_V1))
            .await?
            .iter()
            .any(|referrer| referrer.digest == *digest);
    if listed {
        progress.event(PushEvent::Skipped(digest));
        return Ok(Pushed::Done);
    }
    progress.event(PushEvent::Pushing(digest));
    client.push_referrer(repository, bytes, IMAGE_MANIFEST, &descriptor, &subject.digest).await?;
    progress.event(PushEvent::Pushed(digest));
    Ok(Pushed::Done)
}

async fn push_blob(
    client: &Client,
    repository: &Repository,
    store: &Store,
    blob: &Descriptor,
    progress: &dyn PushProgress,
) -> Result<(), PushError> {
    let begun = AtomicBool::new(false);
    // Called only if the registry does not have it, and again for each retry.
    let open = || async {
        let stream = store.stream(blob).await.map_err(|error| {
            registry::Error::io(&store.content().path(&blob.digest), std::io::Error::other(error.to_string()))
        })?;
        if !begun.swap(true, Relaxed) {
            progress.event(PushEvent::Pushing(&blob.digest));
        }
        Ok(stream)
    };
    let pushed = match client.push_blob(repository, &blob.digest, blob.size, open).await {
        Ok(pushed) => pushed,
        Err(error) => {
            // What the store lacks it says best in its own words.
            drop(store.stream(blob).await?);
            return Err(error.into());
        }
    };
    progress.event(if pushed { PushEvent::Pushed(&blob.digest) } else { PushEvent::Skipped(&blob.digest) });
    Ok(())
}
