//! What containerd does with a snapshotter.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use soci_index::oci::{ImageConfig, ImageManifest};
use testdata::image::Image;

use super::super::store::{Kind, Labels};
use super::super::{Snapshotter, labels};
use super::{REPOSITORY, Rig};
use crate::image::inherit::inherit;
use crate::image::unpack;
use crate::snapshotter::error::SnapshotError;
use crate::snapshotter::mounts::Mount;
use crate::snapshotter::prepare::Prepared;
use crate::snapshotter::pull::LayerRequest;
use crate::snapshotter::record::{Record, RecordedMode};

/// containerd with one namespace.
#[derive(Clone)]
pub(super) struct Client {
    snapshotter: Arc<Snapshotter>,
    namespace: String,
    reference: String,
    /// Name of the snapshot of each chain ID.
    names: HashMap<String, String>,
    /// Given to each request for a layer of an image.
    pub(super) extra: Labels,
}

/// containerd numbers its keys, in all namespaces together here.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Client {
    pub(super) fn new(rig: &Rig, namespace: &str) -> Self {
        Self {
            snapshotter: Arc::clone(rig.snapshotter()),
            namespace: namespace.to_owned(),
            reference: format!("{}/{REPOSITORY}:1", rig.registry.host()),
            names: HashMap::new(),
            extra: Labels::new(),
        }
    }

    /// The same one that pulls from another registry.
    pub(super) fn at(&self, registry: &testdata::registry::TestRegistry) -> Self {
        Self { reference: format!("{}/{REPOSITORY}:1", registry.host()), ..self.clone() }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.namespace, NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn labels(&self, image: &Image, position: usize, chain: &str) -> Labels {
        let manifest = ImageManifest::parse(&image.manifest()).unwrap();
        let mut given = self.extra.clone();
        for (label, value) in [
            (labels::TARGET, chain.to_owned()),
            (labels::IMAGE_REF, self.reference.clone()),
            (labels::MANIFEST_DIGEST, image.digest().to_owned()),
            (labels::LAYER_DIGEST, manifest.layers[position].digest.to_string()),
        ] {
            given.insert(label.to_owned(), value);
        }
        given
    }

    /// The labels that a layer is asked for with.
    pub(super) fn layer_labels(&self, image: &Image, position: usize) -> Labels {
        self.labels(image, position, &chain(image, position))
    }

    pub(super) fn request(&self, image: &Image, position: usize) -> LayerRequest {
        LayerRequest::new(&self.namespace, &chain(image, position), &self.layer_labels(image, position))
            .unwrap()
    }

    /// Prepares one layer over the one below it, which must be there.
    pub(super) async fn prepare_layer(
        &mut self,
        image: &Image,
        position: usize,
    ) -> Result<Prepared, SnapshotError> {
        let chain = chain(image, position);
        let parent = position.checked_sub(1).map(|below| self.name(image, below)).unwrap_or_default();
        let given = self.labels(image, position, &chain);
        let key = self.key(&format!("extract-1 {chain}"));
        let prepared = self.snapshotter.prepare(Some(&self.namespace), &key, &parent, given.clone()).await;
        match prepared {
            Ok(Prepared::Ready(target)) => {
                assert_eq!(target, chain);
                let filter = format!("labels.\"{}\"=={chain},parent==\"{parent}\"", labels::TARGET);
                let found = self.snapshotter.list(&[filter]).await.unwrap();
                let found = found
                    .iter()
                    .find(|found| found.kind == Kind::Committed)
                    .expect("containerd looks for the label");
                self.names.insert(chain, found.name.clone());
                Ok(Prepared::Ready(target))
            }
            Ok(Prepared::Mounts(mounts)) => {
                self.unpack(image, position, &mounts).await;
                let name = self.key(&chain);
                self.snapshotter.commit(&name, &key, "", given).await.unwrap();
                self.names.insert(chain, name);
                Ok(Prepared::Mounts(mounts))
            }
            Err(error) => Err(error),
        }
    }

    /// Unpacks a layer to where the mounts say.
    async fn unpack(&self, image: &Image, position: usize, mounts: &[Mount]) {
        let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
        let target = PathBuf::from(upper.unwrap_or(&mounts[0].source));
        let layer = image.layers()[position].bytes();
        let format = unpack::LayerFormat::from_media_type("application/vnd.oci.image.layer.v1.tar+gzip");
        let lower = mounts[0].options.iter().find_map(|option| option.strip_prefix("lowerdir="));
        let mut lower: Vec<_> =
            lower.into_iter().flat_map(|list| list.split(':')).map(PathBuf::from).collect();
        lower.reverse();
        let unpacking = tokio::task::spawn_blocking(move || {
            let unpacked = unpack::unpack(&*layer, format, &target, &unpack::Options::default()).unwrap();
            inherit(&target, &unpacked.implied, &lower).unwrap();
        });
        unpacking.await.unwrap();
    }

    /// Pulls an image; the modes of its layers, bottom first.
    pub(super) async fn pull(&mut self, image: &Image) -> Vec<&'static str> {
        for position in 0..image.layers().len() {
            match self.prepare_layer(image, position).await {
                Ok(_) => {}
                Err(error) => panic!("layer {position}: {error}"),
            }
        }
        self.modes(image)
    }

    /// Pulls an image as containerd unpacks in parallel: no layer is prepared over another one, and those that
    /// containerd unpacks are committed at the end. `told`: as from containerd 2.3 on, labels say what is below.
    pub(super) async fn pull_in_parallel(&mut self, image: &Image, told: bool) -> Vec<&'static str> {
        let config = ImageConfig::parse(&image.config()).unwrap();
        let mut unpacked = Vec::new();
        for position in 0..image.layers().len() {
            let chain = chain(image, position);
            let mut given = self.labels(image, position, &chain);
            if told {
                let diff_id = config.rootfs.diff_ids[position].clone();
                given.insert(labels::DIFF_ID.to_owned(), diff_id);
            }
            let key = self.key(&format!("extract-1 {chain}"));
            match self.snapshotter.prepare(Some(&self.namespace), &key, "", given.clone()).await {
                Ok(Prepared::Ready(target)) => {
                    // Of others containerd would not know what they are over.
                    assert_eq!((target, position), (chain.clone(), 0));
                    let filter = format!("labels.\"{}\"=={chain},parent==\"\"", labels::TARGET);
                    let found = self.snapshotter.list(&[filter]).await.unwrap();
                    assert_eq!((found.len(), found[0].kind, &*found[0].parent), (1, Kind::Committed, ""));
                    self.names.insert(chain, found[0].name.clone());
                }
                Ok(Prepared::Mounts(mounts)) => {
                    // A daemon that has been restarted gives the same.
                    assert_eq!(self.snapshotter.mounts(&key).await.unwrap(), mounts);
                    assert_eq!(mounts[0].kind, if position == 0 { "bind" } else { "overlay" });
                    self.unpack(image, position, &mounts).await;
                    unpacked.push((position, chain, key, given));
                }
                Err(error) => panic!("layer {position}: {error}"),
            }
        }
        for (position, chain, key, given) in unpacked {
            let parent = position.checked_sub(1).map(|below| self.name(image, below)).unwrap_or_default();
            let name = self.key(&chain);
            self.snapshotter.commit(&name, &key, &parent, given).await.unwrap();
            self.names.insert(chain, name);
        }
        self.modes(image)
    }

    fn modes(&self, image: &Image) -> Vec<&'static str> {
        let mut modes = Vec::new();
        for position in 0..image.layers().len() {
            modes.push(match self.record(image, position).map(|record| record.mode) {
                Some(RecordedMode::Lazy { .. }) => "lazy",
                Some(RecordedMode::Eager { .. }) => "eager",
                Some(RecordedMode::Deferred { .. }) => "deferred",
                None => "none",
            });
        }
        modes
    }

    /// The name of a layer's snapshot.
    pub(super) fn name(&self, image: &Image, position: usize) -> String {
        self.names[&chain(image, position)].clone()
    }

    pub(super) fn record(&self, image: &Image, position: usize) -> Option<Record> {
        let snapshot = self.snapshotter.store.get_any(&self.name(image, position)).unwrap();
        Record::decode(&snapshot.record?, "a test")
    }

    /// A view of an image.
    pub(super) async fn view(&self, image: &Image) -> Result<Vec<Mount>, SnapshotError> {
        let parent = self.name(image, image.layers().len() - 1);
        self.snapshotter.view(&self.key("view"), &parent, Labels::new()).await
    }

    /// A container's snapshot; its key and mounts.
    pub(super) async fn container(
        &self,
        image: &Image,
        given: Labels,
    ) -> Result<(String, Vec<Mount>), SnapshotError> {
        let parent = self.name(image, image.layers().len() - 1);
        let key = self.key("container");
        match self.snapshotter.prepare(Some(&self.namespace), &key, &parent, given).await? {
            Prepared::Mounts(mounts) => Ok((key, mounts)),
            Prepared::Ready(target) => panic!("a container is no layer, as {target} is"),
        }
    }

    /// Removes a container, and the topmost layer of its image.
    pub(super) async fn remove_own(&mut self, image: &Image, container: &str) {
        self.snapshotter.remove(container).await.unwrap();
        // Others may pull an image over what lies below.
        self.snapshotter.remove(&self.name(image, image.layers().len() - 1)).await.unwrap();
    }

    /// Removes all that the snapshotter has, containers and views first.
    pub(super) async fn remove_all(&mut self) {
        self.names.clear();
        loop {
            let mut infos = self.snapshotter.list(&[]).await.unwrap();
            infos.retain(|info| !info.name.is_empty());
            if infos.is_empty() {
                return;
            }
            for info in infos {
                match self.snapshotter.remove(&info.name).await {
                    Ok(()) => {}
                    Err(error) => assert!(error.to_string().contains("child"), "{error}"),
                }
            }
        }
    }
}

/// The chain ID of a layer.
pub(super) fn chain(image: &Image, position: usize) -> String {
    let config = ImageConfig::parse(&image.config()).unwrap();
    config.rootfs.chain_id(position + 1).unwrap()
}
