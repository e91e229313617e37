//! What the snapshotter adds to the metrics: most of it is counted elsewhere, and asked for when somebody reads them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use registry::{Client, Digest};

use super::error::SnapshotError;
use super::layout::Layout;
use super::record::Record;
use super::service::Snapshotter;
use super::store::Kind;
use super::store::SnapshotStore;
use super::trees::Trees;
use crate::base::lock::lock;
use crate::base::metrics::Scrape;
use crate::fronts::forest::Operation;

/// The kernel's requests for images, by the digests of their manifests.
type ImageOperations = BTreeMap<Digest, Vec<(Operation, u64)>>;

impl Trees {
    /// What the kernel has asked of the images whose trees are mounted. An image may have several trees.
    fn operations(&self) -> ImageOperations {
        let mut sums = ImageOperations::new();
        let Some(forest) = self.mounted() else { return sums };
        for (_, mounted) in self.all() {
            let Some(counts) = forest.operations(mounted.slot) else { continue };
            match sums.get_mut(&mounted.image) {
                None => drop(sums.insert(mounted.image.clone(), counts)),
                Some(sum) => sum.iter_mut().zip(counts).for_each(|(sum, (_, count))| sum.1 += count),
            }
        }
        sums
    }

    /// Logs what the kernel has asked of an image, once, some time after its first tree was mounted.
    pub(super) fn log_operations_later(self: &Arc<Self>, image: &Digest) {
        if !lock(&self.counting.logged).insert(image.clone()) {
            return;
        }
        let (trees, image) = (Arc::downgrade(self), image.clone());
        let wait = self.counting.wait;
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            let Some(trees) = trees.upgrade() else { return };
            for (operation, count) in trees.operations().remove(&image).into_iter().flatten() {
                let operation = operation.metric().name();
                tracing::info!("fuse operation count for image {image}: {operation} = {count}");
            }
        });
    }

    fn collect_metrics(&self, layout: &Layout, scrape: &mut Scrape) {
        for (id, mounted) in self.all() {
            let mountpoint = layout.fs(id);
            for layer in &mounted.layers {
                // What is fetched again counts again.
                let (size, fetched) = (layer.size(), layer.fetched_size());
                scrape.layer_bytes(layer.digest(), &mountpoint.to_string_lossy(), size, fetched.min(size));
            }
        }
        for (image, counts) in self.operations() {
            for (operation, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                scrape.image_operations(&image, operation.metric(), count);
            }
        }
    }
}

impl Snapshotter {
    /// Adds what this snapshotter knows to its metrics, as long as it is there.
    pub(super) fn register_metrics(self: &Arc<Self>, clients: Vec<Client>) {
        let snapshotter = Arc::downgrade(self);
        self.trees.counting.metrics.register(move |scrape: &mut Scrape| {
            let mut stats = registry::Stats::default();
            for client in &clients {
                let one = client.stats();
                stats.requests += one.requests;
                stats.bytes_received += one.bytes_received;
                stats.retries += one.retries;
            }
            scrape.registry(&stats);
            let Some(snapshotter) = snapshotter.upgrade() else { return };
            snapshotter.layers.collect_metrics(scrape);
            snapshotter.prefetch.collect_metrics(scrape);
            snapshotter.trees.collect_metrics(&snapshotter.layout, scrape);
            let cache = &snapshotter.cache;
            scrape.cache(cache.used(), cache.limit(), cache.in_memory());
            collect_snapshots(&snapshotter.store, scrape);
        });
    }

    /// Shows layers and indexes that no snapshot uses in the metrics no longer.
    pub(super) fn forget_metrics(&self) -> Result<(), SnapshotError> {
        let mut wanted: HashSet<_> =
            self.layers.all().iter().map(|layer| layer.key().layer.clone()).collect();
        let mut images = HashSet::new();
        for (key, json) in self.store.records()? {
            let Some(record) = Record::decode(&json, &key) else { continue };
            wanted.extend(record.index().cloned());
            images.insert(record.manifest);
        }
        lock(&self.trees.counting.logged).retain(|image| images.contains(image));
        self.trees.counting.metrics.retain_layers(|digest| wanted.contains(digest));
        Ok(())
    }
}

fn collect_snapshots(store: &SnapshotStore, scrape: &mut Scrape) {
    let ids = match store.ids() {
        Ok(ids) => ids,
        Err(error) => return tracing::warn!(%error, "cannot count snapshots"),
    };
    for kind in [Kind::View, Kind::Active, Kind::Committed] {
        let count = ids.values().filter(|(_, found)| *found == kind).count();
        scrape.snapshots(kind.as_str(), count as u64);
    }
}
