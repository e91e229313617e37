//! Prefetch artifacts of an image: from the names of files, or from what was recorded of a start, to the spans that hold
//! them.
//!
//! As in the reference, a name is looked for from the top layer down and the first layer that has it counts; the spans are
//! those of the entry's offset and of the byte behind its end, so that one too many is named where a file ends with its
//! span. Beyond the reference: names in a layer may begin with `./`; of several entries with one name the last counts,
//! which is the one a container sees; a hard link stands for the file it links to; a directory is not prefetched.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use registry::{Descriptor, Digest};
use ztoc::{EntryKind, Ztoc};

use super::created::LayerZtoc;
use super::error::CreateError;
use super::options::{BuildOptions, layer_record};
use super::shared::Shared;
use crate::extract::clean;
use crate::manifest::{IndexManifest, MAX_ZTOC_SIZE, PREFETCH};
use crate::platform::Platform;
use crate::prefetch::{MAX_PREFETCH_SIZE, PrefetchArtifact, SpanRange, prioritise};
use crate::recording::Recording;
use crate::store::{ArtifactKind, Record, Store, StoreError};

/// Files that may be named for one image. Whoever wants more wants the image downloaded.
pub const MAX_PREFETCH_FILES: usize = 1 << 20;

/// Links followed within a layer; hard links to hard links do not exist in honest archives.
const MAX_LINKS: usize = 40;

/// What a name came to in a layer.
#[derive(Debug, PartialEq, Eq)]
enum Hit {
    Spans(SpanRange),
    /// A symbolic link: its own header's span, which is what the reference takes.
    Symlink(SpanRange, String),
    Directory,
}

impl Shared {
    /// Builds and stores the prefetch artifacts of an image, and gives their descriptors in the order of its layers.
    pub(super) async fn prefetch_artifacts(
        &self,
        platform: &Platform,
        layers: &[(&Descriptor, &LayerZtoc)],
    ) -> Result<Vec<Descriptor>, CreateError> {
        let mut wanted: HashMap<Vec<u8>, &str> = self
            .options
            .prefetch_files
            .iter()
            .map(|file| (file.trim(), file.as_str()))
            .filter(|(file, _)| !file.is_empty())
            .map(|(file, given)| (clean(file.as_bytes()), given))
            .collect();
        let recorded = self.recorded(layers).await?;
        let mut found: HashMap<&Digest, Vec<SpanRange>> = HashMap::new();
        for &(layer, ztoc) in layers.iter().rev() {
            if wanted.is_empty() {
                break;
            }
            let names: Vec<Vec<u8>> = wanted.keys().cloned().collect();
            for (name, hit) in self.look_up(ztoc, names).await? {
                let Some(given) = wanted.remove(&name) else { continue };
                let progress = |reason: &str| self.progress.prefetch_skipped(platform, given, reason);
                match hit {
                    Hit::Spans(range) => found.entry(&layer.digest).or_default().push(range),
                    Hit::Symlink(range, target) => {
                        progress(&format!(
                            "it is a symbolic link; name the file it leads to as well: {target}"
                        ));
                        found.entry(&layer.digest).or_default().push(range);
                    }
                    Hit::Directory => progress("it is a directory; name the files in it"),
                }
            }
        }
        let mut missing: Vec<&str> = wanted.into_values().collect();
        missing.sort_unstable();
        for given in missing {
            self.progress.prefetch_skipped(platform, given, "it is in no layer that has a zTOC");
        }

        let mut descriptors = Vec::new();
        for (layer, _) in layers {
            let named = found.remove(&layer.digest).and_then(PrefetchArtifact::new);
            let artifact = match (recorded.get(&layer.digest), named) {
                (None, named) => named,
                // What was read comes in its order, and what was named after it.
                (Some(recorded), named) => PrefetchArtifact::in_order(
                    recorded.iter().copied().chain(named.iter().flat_map(|named| named.ranges().to_vec())),
                ),
            };
            if let Some(artifact) = artifact
                && let Some(descriptor) =
                    store_artifact(&self.store, &self.options, &layer.digest, &artifact).await?
            {
                self.progress.prefetch_built(layer, &descriptor.digest);
                descriptors.push(descriptor);
            }
        }
        Ok(descriptors)
    }

    /// The spans of each layer that the recording names, in its order.
    async fn recorded(
        &self,
        layers: &[(&Descriptor, &LayerZtoc)],
    ) -> Result<HashMap<Digest, Vec<SpanRange>>, CreateError> {
        let Some(recording) = &self.options.recording else { return Ok(HashMap::new()) };
        let mut places = Vec::new();
        let mut digests = Vec::new();
        for (layer, ztoc) in layers {
            if digests.contains(&layer.digest)
                || !recording.layers.iter().any(|recorded| recorded.layer == layer.digest)
            {
                continue;
            }
            let bytes = self.store.get(&ztoc.digest, MAX_ZTOC_SIZE).await?;
            places.push(recorded_spans(recording, &layer.digest, &ztoc.digest, bytes).await?);
            digests.push(layer.digest.clone());
        }
        Ok(digests.into_iter().zip(prioritise(&places)).collect())
    }

    /// Looks for names in a layer. One zTOC at a time is read for this.
    async fn look_up(
        &self,
        ztoc: &LayerZtoc,
        names: Vec<Vec<u8>>,
    ) -> Result<Vec<(Vec<u8>, Hit)>, CreateError> {
        let bytes = self.store.get(&ztoc.digest, MAX_ZTOC_SIZE).await?;
        let search = tokio::task::spawn_blocking(move || Ztoc::parse(bytes).map(|ztoc| search(&ztoc, names)));
        match search.await {
            Ok(Ok(hits)) => Ok(hits),
            Ok(Err(error)) => Err(StoreError::Damaged(ztoc.digest.clone(), error.to_string()).into()),
            Err(error) => Err(CreateError::Internal(error.to_string())),
        }
    }
}

/// Where in a recording spans of a layer were read, by its zTOC, of which these are the bytes.
pub(super) async fn recorded_spans(
    recording: &Arc<Recording>,
    layer: &Digest,
    ztoc: &Digest,
    bytes: Bytes,
) -> Result<Vec<(usize, Range<usize>)>, CreateError> {
    let (recording, layer) = (Arc::clone(recording), layer.clone());
    let mapping =
        tokio::task::spawn_blocking(move || Ztoc::parse(bytes).map(|ztoc| recording.spans(&layer, &ztoc)));
    match mapping.await {
        Ok(Ok(spans)) => Ok(spans),
        Ok(Err(error)) => Err(StoreError::Damaged(ztoc.clone(), error.to_string()).into()),
        Err(error) => Err(CreateError::Internal(error.to_string())),
    }
}

/// Stores the prefetch artifact of a layer, and gives its descriptor for the index; `None` if it is too large.
pub(super) async fn store_artifact(
    store: &Store,
    options: &BuildOptions,
    layer: &Digest,
    artifact: &PrefetchArtifact,
) -> Result<Option<Descriptor>, StoreError> {
    let bytes = artifact.encode();
    let size = bytes.len() as u64;
    if size > MAX_PREFETCH_SIZE {
        // Takes spans of a few bytes and a hundred thousand files: no reason to fail.
        tracing::warn!(%layer, size, "the prefetch artifact is too large and is left out");
        return Ok(None);
    }
    let digest = store.put(bytes).await?;
    let mut record = Record {
        kind: ArtifactKind::Prefetch,
        media_type: PREFETCH.to_owned(),
        ..layer_record(options, digest.clone(), size, layer.clone())
    };
    record.stamp();
    store.record(vec![record]).await?;
    Ok(Some(IndexManifest::prefetch_descriptor(digest, size, layer)))
}

fn search(ztoc: &Ztoc, names: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Hit)> {
    let mut places: HashMap<Vec<u8>, Option<usize>> = names.into_iter().map(|name| (name, None)).collect();
    for (at, entry) in ztoc.entries().enumerate() {
        if let Some(place) = places.get_mut(&clean(entry.name)) {
            *place = Some(at);
        }
    }
    let found = places.into_iter().filter_map(|(name, place)| Some((name, place?)));
    let mut hits: Vec<(Vec<u8>, Hit)> = found.filter_map(|(name, at)| Some((name, hit(ztoc, at)?))).collect();
    hits.sort_by(|a, b| a.0.cmp(&b.0));
    hits
}

fn hit(ztoc: &Ztoc, at: usize) -> Option<Hit> {
    let spans = ztoc.spans();
    let range = |offset: u64, size: u64| {
        let span = |offset| u32::try_from(spans.span_of(offset)).unwrap_or(u32::MAX);
        SpanRange::new(span(offset), span(offset.saturating_add(size)))
    };
    let entry = ztoc.entry(at)?;
    let own = range(entry.offset, entry.size);
    Some(match entry.kind {
        EntryKind::Directory => Hit::Directory,
        EntryKind::Symlink => {
            Hit::Symlink(own, crate::text::excerpt(&String::from_utf8_lossy(entry.link_name)))
        }
        EntryKind::Hardlink => Hit::Spans(link_target(ztoc, at).map_or(own, |at| match ztoc.entry(at) {
            Some(target) => range(target.offset, target.size),
            None => own,
        })),
        _ => Hit::Spans(own),
    })
}

/// The regular file that a hard link leads to, if this layer has it.
fn link_target(ztoc: &Ztoc, link: usize) -> Option<usize> {
    let mut at = link;
    for _ in 0..MAX_LINKS {
        let entry = ztoc.entry(at)?;
        match entry.kind {
            EntryKind::Regular => return Some(at),
            EntryKind::Hardlink => {
                let target = clean(entry.link_name);
                let named =
                    |&other: &usize| ztoc.entry(other).is_some_and(|entry| clean(entry.name) == target);
                // A hard link leads to an earlier entry.
                at = (0..at).rev().find(named)?;
            }
            _ => return None,
        }
    }
    None
}
