//! One pull: the documents of an image, and its layers.

use std::sync::Arc;

use bytes::Bytes;
use registry::{Descriptor, Digest, DigestHasher, Repository};
use serde::Deserialize;

use super::error::PullError;
use super::outcome::{PullProgress, PulledLayer};
use super::stack::Stack;
use crate::containerd::labels::{self, Labels};
use crate::containerd::{Containerd, Lease};
use crate::image::{self, PlatformChoice};
use crate::manifest::{INDEX_DIGEST, IndexManifest};
use crate::oci::{self, DocumentError, ImageIndex, ImageManifest, MAX_CONFIG_SIZE};
use crate::platform::Platform;
use crate::source::{ImageSource, RegistrySource, SourceError};

/// Layers downloaded at the same time unless the user says otherwise; containerd's default too.
pub const DEFAULT_CONCURRENT_DOWNLOADS: usize = 3;

/// More documents than any image index leads to.
pub(super) const MAX_INDEXES: usize = 100;

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The snapshotter that is to hold the layers.
    pub snapshotter: String,
    /// The platform; `None` for the host's.
    pub platform: Option<Platform>,
    /// The SOCI index that the snapshotter is to use, if it is not to look for one.
    pub index: Option<Digest>,
    /// Layers that are downloaded at the same time.
    pub concurrent_downloads: usize,
}

impl PullOptions {
    /// Pulls for the host's platform through `snapshotter`.
    pub fn new(snapshotter: impl Into<String>) -> Self {
        Self {
            snapshotter: snapshotter.into(),
            platform: None,
            index: None,
            concurrent_downloads: DEFAULT_CONCURRENT_DOWNLOADS,
        }
    }
}

/// An image that containerd has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its name there.
    pub name: String,
    /// What the name stands for: an image index or a manifest.
    pub target: Descriptor,
    /// The platform that was pulled.
    pub platform: Platform,
    /// Descriptor of that platform's manifest.
    pub manifest: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<PulledLayer>,
}

/// Pulls an image into containerd.
///
/// # Errors
/// When the image cannot be read, is not what its digests say, or containerd or the snapshotter fails; see [`PullError`].
/// The image's name then stands for what it stood for before. What had arrived is used by the next pull, if containerd has
/// not collected it by then.
pub async fn pull(
    containerd: &Containerd,
    source: Arc<RegistrySource>,
    options: &PullOptions,
    progress: Arc<dyn PullProgress>,
) -> Result<Pulled, PullError> {
    containerd.check_snapshotter(&options.snapshotter).await?;
    let root = source.root().await?;
    let choice = options
        .platform
        .clone()
        .map_or(PlatformChoice::Host, |platform| PlatformChoice::These(vec![platform]));
    let image = image::select(&*source, &root, &choice)
        .await?
        .into_iter()
        .next()
        .ok_or_else(|| PullError::Internal("no platform was selected".into()))?;

    let lease = containerd.lease().await?;
    let puller = Puller { source, lease: &lease, options, progress };
    let pulled = puller.image(root, image).await;
    let released = lease.release().await;
    let pulled = pulled?;
    released?;
    Ok(pulled)
}

/// One pull.
pub(super) struct Puller<'a> {
    pub(super) source: Arc<RegistrySource>,
    pub(super) lease: &'a Lease,
    pub(super) options: &'a PullOptions,
    pub(super) progress: Arc<dyn PullProgress>,
}

/// What an image's configuration says about layers.
#[derive(Deserialize)]
pub(super) struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl Puller<'_> {
    async fn image(&self, root: Descriptor, image: image::PlatformImage) -> Result<Pulled, PullError> {
        self.indexes(&root).await?;
        let json = self.source.manifest(&image.descriptor).await?;
        let manifest = ImageManifest::parse(&json).map_err(|error| document(&image.descriptor, error))?;
        self.document("manifest", json, labels::of_image_manifest(&manifest)).await?;
        let config = async { Ok(self.source.small_blob(&manifest.config, MAX_CONFIG_SIZE).await?) };
        let (json, ()) = tokio::try_join!(config, self.soci_index(&manifest))?;
        let diff_ids = diff_ids(&image.descriptor, &manifest, &json)?;
        self.document("config", json, Labels::new()).await?;

        let name = self.source.reference().to_string();
        let chain = chain_ids(&diff_ids);
        let stack =
            Stack { name: &name, manifest: &image.descriptor, layers: &manifest.layers, diff_ids, chain };
        let layers = self.unpack(&stack).await?;

        if let Some(top) = layers.last() {
            let key = format!("{}.{}", labels::SNAPSHOT_REF, self.options.snapshotter);
            let keep = Labels::from([(key, top.chain_id.to_string())]);
            self.containerd().label_content(&manifest.config.digest, keep).await?;
        }
        self.containerd().put_image(&name, &root).await?;
        Ok(Pulled { name, target: root, platform: image.platform, manifest: image.descriptor, layers })
    }

    pub(super) fn containerd(&self) -> &Containerd {
        self.lease.containerd()
    }

    fn repository(&self) -> &Repository {
        self.source.reference().repository()
    }

    /// Stores the image index and those in it. Which of the manifests are there makes no difference to containerd.
    async fn indexes(&self, root: &Descriptor) -> Result<(), PullError> {
        let mut pending = vec![root.clone()];
        let mut seen = std::collections::HashSet::new();
        while let Some(descriptor) = pending.pop() {
            if !oci::is_index(&descriptor) || !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if seen.len() > MAX_INDEXES {
                let reason = format!("it leads to more than {MAX_INDEXES} image indexes");
                return Err(PullError::NotAnImage { digest: root.digest.clone(), reason });
            }
            let json = self.source.manifest(&descriptor).await?;
            let index = ImageIndex::parse(&json).map_err(|error| document(&descriptor, error))?;
            self.document("index", json, labels::of_image_index(&index)).await?;
            pending.extend(index.manifests);
        }
        Ok(())
    }

    /// Stores the SOCI index that the snapshotter will look for first, if it is known already. The snapshotter asks containerd
    /// before the registry, so this saves it a round trip. Whether the index is any good is for the snapshotter to judge.
    async fn soci_index(&self, manifest: &ImageManifest) -> Result<(), PullError> {
        let named = || manifest.annotations.get(INDEX_DIGEST).and_then(|digest| digest.parse().ok());
        let Some(digest) = self.options.index.clone().or_else(named) else { return Ok(()) };
        let fetched = self.source.client().manifest_in(self.repository(), &digest).await;
        let json = match fetched {
            Ok(found) => found.bytes,
            Err(error) => {
                tracing::debug!(%digest, %error, "the SOCI index is left to the snapshotter");
                return Ok(());
            }
        };
        match IndexManifest::parse(&json) {
            Ok(index) => self.document("manifest", json, labels::of_soci_index(&index)).await,
            Err(error) => {
                tracing::debug!(%digest, %error, "not a SOCI index; left to the snapshotter");
                Ok(())
            }
        }
    }

    /// Stores a document with labels and the place where it came from. Unfinished writes have the names that containerd's
    /// own client gives them, so that two clients do not do the same work at the same time.
    async fn document(&self, kind: &str, json: Bytes, mut labels: Labels) -> Result<(), PullError> {
        let digest = Digest::of(&json);
        let now = self.containerd().content_info(&digest).await?.map(|info| info.labels).unwrap_or_default();
        labels.extend(labels::distribution_source(self.repository(), &now));
        self.containerd().put_content(&format!("{kind}-{digest}"), json, labels).await?;
        Ok(())
    }
}

pub(super) fn document(descriptor: &Descriptor, error: DocumentError) -> PullError {
    SourceError::document(descriptor, error).into()
}

/// The digests of the uncompressed layers, one for each layer.
pub(super) fn diff_ids(
    image: &Descriptor,
    manifest: &ImageManifest,
    config: &[u8],
) -> Result<Vec<Digest>, PullError> {
    let bad = |reason: String| PullError::NotAnImage { digest: image.digest.clone(), reason };
    let config: Config =
        oci::parse("image configuration", config, MAX_CONFIG_SIZE).map_err(|error| bad(error.to_string()))?;
    let (ids, layers) = (config.rootfs.diff_ids, manifest.layers.len());
    if ids.len() != layers {
        return Err(bad(format!("the manifest has {layers} layers, and the configuration {}", ids.len())));
    }
    Ok(ids)
}

/// The names of the snapshots: each layer's, with all below it.
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = match chain.last() {
            None => id.clone(),
            Some(parent) => {
                let mut hasher = DigestHasher::new();
                hasher.update(format!("{parent} {id}").as_bytes());
                hasher.finish()
            }
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let ids = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes()));
        assert_eq!(chain[2], Digest::of(format!("{} {}", chain[1], ids[2]).as_bytes()));
    }

    #[test]
    fn layers_and_diff_ids_have_to_agree() {
        let digest = Digest::of(b"x");
        let descriptor = Descriptor::new(oci::IMAGE_MANIFEST, digest.clone(), 1);
        let json = format!(
            r#"{{"config":{{"mediaType":"c","digest":"{digest}","size":1}},"layers":[{{"mediaType":"l","digest":"{digest}","size":1}}]}}"#
        );
        let manifest = ImageManifest::parse(json.as_bytes()).unwrap();
        let ids = |config: &str| diff_ids(&descriptor, &manifest, config.as_bytes());
        assert_eq!(ids(&format!(r#"{{"rootfs":{{"diff_ids":["{digest}"]}}}}"#)).unwrap(), [digest]);
        for (config, words) in [
            ("{}", "missing field `rootfs`"),
            (r#"{"rootfs":{}}"#, "the manifest has 1 layers, and the configuration 0"),
            (r#"{"rootfs":{"diff_ids":["sha256:../x"]}}"#, "malformed"),
            ("[", "malformed"),
        ] {
            let error = ids(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
