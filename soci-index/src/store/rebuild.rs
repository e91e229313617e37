//! Making the records again from the blobs: `soci rebuild-db`.
//!
//! Records whose blob is gone are dropped. Index manifests that no record names get records, with their zTOCs and prefetch
//! artifacts. What was found in this way is marked ([`Record::found`]): anybody's index may lie in a content store, and a
//! build must not take a stranger's zTOC for its own.
//!
//! Blobs are looked at one at a time, and only those that are small enough for a manifest and begin like JSON.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::TryStreamExt;
use registry::{Descriptor, Digest};

use super::artifacts::{Inner, Store, blocking};
use super::database::{ArtifactKind, Record};
use super::error::StoreError;
use super::lock::Lease;
use crate::containerd::{Containerd, ContainerdError};
use crate::manifest::{IMAGE_MANIFEST_DIGEST, INDEX_DIGEST, INDEX_V2, IndexManifest, IndexVersion};
use crate::oci::{
    IMAGE_MANIFEST, ImageConfig, ImageIndex, ImageManifest, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE,
};
use crate::platform::Platform;

/// No manifest is smaller, in bytes; the config blob of index manifests is.
const MIN_MANIFEST_SIZE: u64 = 10;

/// What [`Store::rebuild`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records dropped because their blob is gone.
    pub dropped: usize,
    /// Records kept although their blob was not found, because containerd, which may have it, does not answer.
    pub unknown: usize,
    /// Records of indexes added.
    pub indexes: usize,
    /// Records of zTOCs and prefetch artifacts added.
    pub artifacts: usize,
}

/// A blob in one of the content stores.
struct Seen {
    digest: Digest,
    size: u64,
    /// When it was made, if that is known.
    created: Option<SystemTime>,
}

/// What the documents in the content stores say.
#[derive(Default)]
struct Findings {
    indexes: Vec<(Seen, IndexManifest)>,
    /// Image manifests by the version 2 index that they name.
    images: HashMap<Digest, Digest>,
    /// Platforms by the version 2 index that an image index gives them for.
    platforms: HashMap<Digest, String>,
    /// Image indexes by the manifests in them.
    parents: HashMap<Digest, Digest>,
}

impl Findings {
    /// Takes note of a document.
    fn add(&mut self, seen: Seen, json: &[u8]) {
        if let Ok(index) = IndexManifest::parse(json) {
            self.indexes.push((seen, index));
        } else if let Ok(manifest) = ImageManifest::parse(json) {
            if let Some(index) = manifest.annotations.get(INDEX_DIGEST).and_then(|text| text.parse().ok()) {
                self.images.insert(index, seen.digest);
            }
        } else if let Ok(index) = ImageIndex::parse(json) {
            for entry in index.manifests {
                if entry.artifact_type.as_deref() == Some(INDEX_V2) {
                    if let Some(platform) = &entry.platform {
                        self.platforms.insert(entry.digest.clone(), Platform::from(platform).to_string());
                    }
                    let image = entry.annotations.get(IMAGE_MANIFEST_DIGEST);
                    if let Some(image) = image.and_then(|text| text.parse().ok()) {
                        self.images.entry(entry.digest.clone()).or_insert(image);
                    }
                }
                self.parents.insert(entry.digest, seen.digest.clone());
            }
        }
    }
}

impl Store {
    /// Makes the records agree with the blobs that are there, in the store's own files and in containerd if the store
    /// [reads](Store::reading_containerd) it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a build is running, or a failure to read or write.
    pub async fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        let inner = std::sync::Arc::clone(&self.inner);
        let path = inner.root.join("artifacts.lock");
        let _exclusive = blocking(move || Lease::exclusive(&path)).await?;
        let (mut findings, mut there) = blocking(move || inner.scan()).await?;
        let mut names: HashMap<Digest, Vec<String>> = HashMap::new();
        let mut containerd_is_silent = false;
        if let Some(remote) = &self.remote {
            match remote.reader().await {
                Some(containerd) => {
                    scan_containerd(containerd, &mut findings, &mut there).await?;
                    for image in containerd.images().await? {
                        names.entry(image.target.digest).or_default().push(image.name);
                    }
                }
                None => containerd_is_silent = true,
            }
        }

        let mut result = Rebuilt::default();
        let (mut records, gone): (Vec<Record>, Vec<Record>) =
            self.records().await?.into_iter().partition(|record| there.contains(&record.digest));
        if containerd_is_silent {
            result.unknown = gone.len();
            records.extend(gone);
        } else {
            result.dropped = gone.len();
            let inner = std::sync::Arc::clone(&self.inner);
            blocking(move || inner.database.remove(&gone)).await?;
        }

        let known: HashSet<Digest> = records
            .iter()
            .filter(|record| record.kind == ArtifactKind::Index)
            .map(|record| record.digest.clone())
            .collect();
        let mut keys: HashSet<String> = records.iter().map(Record::key).collect();
        let mut added = Vec::new();
        for (seen, index) in &findings.indexes {
            if !known.contains(&seen.digest) {
                added.extend(self.index_records(seen, index, &findings, &names).await);
            }
            added.extend(artifact_records(seen, index, &there));
        }
        // Several indexes may name one artifact, and one that was built here stays what it is.
        added.retain(|record| keys.insert(record.key()));
        result.indexes = added.iter().filter(|record| record.kind == ArtifactKind::Index).count();
        result.artifacts = added.len() - result.indexes;
        self.record(added).await?;
        Ok(result)
    }

    /// The records of an index: one for each name that containerd has for its image, or one without a name.
    async fn index_records(
        &self,
        seen: &Seen,
        index: &IndexManifest,
        findings: &Findings,
        names: &HashMap<Digest, Vec<String>>,
    ) -> Vec<Record> {
        let image = match &index.subject {
            Some(subject) if index.version == IndexVersion::V1 => Some(&subject.digest),
            _ => findings.images.get(&seen.digest),
        };
        // Of a version 2 index whose image is not here, nobody knows the image. An index is not its own image, so this
        // makes no other command believe that it is somebody's.
        let Some(image) = image else {
            let platform = findings.platforms.get(&seen.digest).cloned().unwrap_or_default();
            return vec![Record {
                platform,
                ..record(seen, index, ArtifactKind::Index, seen.digest.clone())
            }];
        };
        let platform = match findings.platforms.get(&seen.digest) {
            Some(platform) => platform.clone(),
            None => self.platform_of(image).await.unwrap_or_default(),
        };
        let target = match findings.parents.get(image) {
            Some(parent) if !names.contains_key(image) => parent,
            _ => image,
        };
        let unnamed = Record {
            platform,
            image_digest: Some(target.clone()),
            ..record(seen, index, ArtifactKind::Index, image.clone())
        };
        match names.get(target) {
            Some(names) => {
                names.iter().map(|name| Record { image_ref: name.clone(), ..unnamed.clone() }).collect()
            }
            None => vec![unnamed],
        }
    }

    /// The platform of an image whose manifest and configuration are in a content store.
    async fn platform_of(&self, image: &Digest) -> Option<String> {
        let manifest = ImageManifest::parse(&self.get(image, MAX_MANIFEST_SIZE).await.ok()?).ok()?;
        let config = self.get(&manifest.config.digest, MAX_CONFIG_SIZE).await.ok()?;
        Some(Platform::from(&ImageConfig::parse(&config).ok()?.platform).to_string())
    }
}

/// A record of what was found.
fn record(seen: &Seen, index: &IndexManifest, kind: ArtifactKind, oci_digest: Digest) -> Record {
    let mut record = Record {
        digest: seen.digest.clone(),
        kind,
        size: seen.size,
        span_size: index.ztocs().find_map(|ztoc| ztoc.span_size).unwrap_or_default(),
        oci_digest,
        image_digest: None,
        image_ref: String::new(),
        platform: String::new(),
        media_type: IMAGE_MANIFEST.to_owned(),
        artifact_type: index.version.media_type().to_owned(),
        tool: index.build_tool().unwrap_or_default().to_owned(),
        created_at: 0,
        created_at_ns: 0,
        found: true,
    };
    match seen.created.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
        Some(time) => {
            record.created_at = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            record.created_at_ns = time.subsec_nanos();
        }
        None => record.stamp(),
    }
    record
}

/// The records of an index's zTOCs and prefetch artifacts, as far as these are there.
fn artifact_records(seen: &Seen, index: &IndexManifest, there: &HashSet<Digest>) -> Vec<Record> {
    let of = |kind, blob: &Descriptor, layer: &str, span_size: Option<u64>| {
        let seen = Seen { digest: blob.digest.clone(), size: blob.size, created: seen.created };
        Some(Record {
            media_type: blob.media_type.clone(),
            artifact_type: String::new(),
            span_size: span_size.unwrap_or_default(),
            ..record(&seen, index, kind, layer.parse().ok()?)
        })
    };
    let ztocs =
        index.ztocs().filter_map(|ztoc| of(ArtifactKind::Layer, ztoc.descriptor, ztoc.layer, ztoc.span_size));
    // A prefetch artifact speaks of the spans of its layer's zTOC.
    let prefetches = index.prefetches().filter_map(|prefetch| {
        let ztoc = index.ztocs().find(|ztoc| ztoc.layer == prefetch.layer);
        let span_size = ztoc.and_then(|ztoc| ztoc.span_size);
        of(ArtifactKind::Prefetch, prefetch.descriptor, prefetch.layer, span_size)
    });
    ztocs.chain(prefetches).filter(|record| there.contains(&record.digest)).collect()
}

/// Whether a blob can be a manifest, by its size.
fn may_be_manifest(size: u64) -> bool {
    (MIN_MANIFEST_SIZE..=MAX_MANIFEST_SIZE).contains(&size)
}

impl Inner {
    /// Goes through the store's own files: what their documents say, and which blobs there are.
    fn scan(&self) -> Result<(Findings, HashSet<Digest>), StoreError> {
        let mut findings = Findings::default();
        let mut there = HashSet::new();
        let directory = self.content.directory();
        for entry in std::fs::read_dir(&directory).map_err(StoreError::io(&directory))? {
            let entry = entry.map_err(StoreError::io(&directory))?;
            let digest = entry.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
            // What has another name than a digest is none of ours, and what is gone meanwhile is gone.
            let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let size = metadata.len();
            there.insert(Digest::clone(&digest));
            let mut first = [0];
            let is_json = may_be_manifest(size)
                && File::open(entry.path()).and_then(|mut file| file.read_exact(&mut first)).is_ok()
                && first == *b"{";
            if !is_json {
                continue;
            }
            match self.content.get(&digest, MAX_MANIFEST_SIZE) {
                Ok(json) => findings.add(Seen { digest, size, created: metadata.modified().ok() }, &json),
                Err(error) => tracing::debug!(%error, "a blob is passed over"),
            }
        }
        Ok((findings, there))
    }
}

/// The same for containerd's content store.
async fn scan_containerd(
    containerd: &Containerd,
    findings: &mut Findings,
    there: &mut HashSet<Digest>,
) -> Result<(), StoreError> {
    for (digest, info) in containerd.contents().await? {
        if !there.insert(digest.clone()) || !may_be_manifest(info.size) {
            continue;
        }
        match read_json(containerd, &digest).await {
            Ok(Some(json)) => findings.add(Seen { digest, size: info.size, created: info.created }, &json),
            Ok(None) => {}
            // Collected meanwhile, or damaged.
            Err(error) => tracing::debug!(%error, "content is passed over"),
        }
    }
    Ok(())
}

/// Content that begins like JSON.
async fn read_json(containerd: &Containerd, digest: &Digest) -> Result<Option<Bytes>, ContainerdError> {
    let damaged = |error: registry::Error| ContainerdError::Damaged {
        digest: digest.clone(),
        problem: error.to_string(),
    };
    let first = containerd.read_content(digest, 0..1).await?.try_next().await.map_err(damaged)?;
    if first.is_none_or(|first| !first.starts_with(b"{")) {
        return Ok(None);
    }
    containerd.content_bytes(digest, MAX_MANIFEST_SIZE).await
}
