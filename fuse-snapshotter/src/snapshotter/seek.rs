//! Other sources of layers that nobody has named.
//!
//! containerd asks nothing of a snapshotter for an image whose layers are all there, so the repository of such an image
//! is learnt only when it is needed: when a layer cannot be had any more, containerd is asked which of its images have
//! it.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use registry::{Descriptor, Digest, Reference};
use soci_index::oci::{ImageConfig, ImageIndex, ImageManifest, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, is_index};

use super::error::SnapshotError;
use super::labels;
use super::layer_runs::chain_id;
use super::pull::ContentOfNamespace;
use super::record::Record;
use super::service::Snapshotter;
use super::store::{Kind, SnapshotStore, StoreError};
use crate::image::{Chain, LayerKey, LocalContent, OtherSource, Seek, name_of};

/// Bounds of what is looked at: namespaces, images in each, and platforms of an image.
const NAMESPACES: usize = 16;
const IMAGES: usize = 1000;
const PLATFORMS: usize = 32;

/// How long containerd is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks containerd.
pub(super) struct ImagesOfContainerd {
    pub(super) snapshotter: Weak<Snapshotter>,
    pub(super) content: ContentOfNamespace,
}

/// A snapshot that is read by the layer which is sought.
struct Place {
    key: LayerKey,
    /// How many layers are below it.
    position: usize,
    chain: Chain,
}

#[async_trait]
impl Seek for ImagesOfContainerd {
    async fn seek(&self, layer: &Digest) -> bool {
        match tokio::time::timeout(PATIENCE, self.look(layer)).await {
            Ok(Ok(twin)) => twin,
            Ok(Err(error)) => {
                tracing::debug!(%layer, %error, "cannot look for other sources of a layer");
                false
            }
            Err(_) => false,
        }
    }
}

impl ImagesOfContainerd {
    async fn look(&self, layer: &Digest) -> Result<bool, SnapshotError> {
        let Some(snapshotter) = self.snapshotter.upgrade() else { return Ok(false) };
        let (places, namespaces) = {
            let layer = layer.clone();
            snapshotter.store(move |store| places(store, &layer)).await?
        };
        let mut twin = false;
        for namespace in namespaces.iter().take(NAMESPACES) {
            for content in (self.content)(namespace) {
                for (name, target) in content.images().await.into_iter().take(IMAGES) {
                    // Images without a name to pull them by are listed, too.
                    let Ok(reference) = name.parse::<Reference>() else { continue };
                    for manifest in manifests(&*content, &target).await {
                        twin |= offer(&snapshotter, &*content, &reference, layer, &manifest, &places).await;
                    }
                }
            }
        }
        Ok(twin)
    }
}

/// The snapshots that a layer serves, and the namespaces that there are.
fn places(store: &SnapshotStore, layer: &Digest) -> Result<(Vec<Place>, BTreeSet<String>), StoreError> {
    let (mut places, mut namespaces) = (Vec::new(), BTreeSet::new());
    for info in store.list(|info| info.kind == Kind::Committed)? {
        namespaces.extend(info.labels.get(labels::NAMESPACE).cloned());
        let snapshot = store.get_any(&info.name)?;
        let record = snapshot.record.as_deref().and_then(|json| Record::decode(json, &info.name));
        let Some(key) = record.and_then(|record| record.lazy()).filter(|key| key.layer == *layer) else {
            continue;
        };
        let below = snapshot.parents.first().map(|below| chain_id(below).to_owned());
        let own = info.labels.get(labels::TARGET).unwrap_or(&info.name).clone();
        places.push(Place { key, position: snapshot.parents.len(), chain: Chain { own, below } });
    }
    Ok((places, namespaces))
}

/// The manifests of an image, for all platforms that containerd has.
async fn manifests(content: &dyn LocalContent, target: &Descriptor) -> Vec<ImageManifest> {
    let get = async |digest: &Digest| content.get(digest, MAX_MANIFEST_SIZE).await;
    let Some(json) = get(&target.digest).await else { return Vec::new() };
    if !is_index(target) {
        return ImageManifest::parse(&json).into_iter().collect();
    }
    let mut found = Vec::new();
    for platform in ImageIndex::parse(&json).into_iter().flat_map(|index| index.manifests).take(PLATFORMS) {
        if let Some(json) = get(&platform.digest).await {
            found.extend(ImageManifest::parse(&json));
        }
    }
    found
}

/// Adds what an image has of a layer. Whether it has another layer with the same content.
async fn offer(
    snapshotter: &Snapshotter,
    content: &dyn LocalContent,
    reference: &Reference,
    layer: &Digest,
    manifest: &ImageManifest,
    places: &[Place],
) -> bool {
    let repository = reference.repository();
    if manifest.layers.iter().any(|other| other.digest == *layer) {
        snapshotter.layers.add_repository(&manifest.layers, repository);
        return false;
    }
    let Some(json) = content.get(&manifest.config.digest, MAX_CONFIG_SIZE).await else { return false };
    let Ok(config) = ImageConfig::parse(&json) else { return false };
    let mut twin = false;
    for Place { key, position, chain } in places {
        let there = manifest.layers.get(*position);
        let is_it = config.rootfs.chain_id(position + 1).as_ref() == Some(&chain.own);
        if let (Some(open), Some(there), true) = (snapshotter.layers.get(key), there, is_it) {
            let (repository, layer) = (name_of(repository), there.digest.clone());
            let other = OtherSource { repository, layer, size: there.size };
            snapshotter.layers.add_twin(&open, &other, chain.clone());
            twin = true;
        }
    }
    twin
}
