//! Telling foresight that a container starts.

use std::sync::Arc;

use super::record::Record;
use super::service::Snapshotter;
use super::store::{Kind, Snapshot};
use crate::foresight::recorded::Start;
use crate::image::LayerKey;

impl Snapshotter {
    /// Tells those who record and replay starts of a snapshot that a container is made of, when its mounts are asked
    /// for. Not of one that a layer is unpacked into.
    pub(super) fn container_starts(self: &Arc<Self>, snapshot: &Snapshot) {
        if snapshot.kind != Kind::Active || snapshot.record.is_some() {
            return;
        }
        let records: Vec<_> = snapshot.parents.iter().rev().filter_map(Record::of).collect();
        // Layers below may have been pulled for another image.
        let Some(top) = records.last() else { return };
        let index =
            records.iter().rev().filter(|record| record.manifest == top.manifest).find_map(Record::index);
        let Some(index) = index.or_else(|| records.iter().rev().find_map(Record::index)) else { return };
        // An image may have the same layer twice.
        let mut keys: Vec<LayerKey> = Vec::new();
        for key in records.iter().filter_map(Record::lazy) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        self.prefetch.starts(&Start {
            snapshot: snapshot.id,
            upper: self.layout.fs(snapshot.id),
            forest: self.trees.mounted(),
            image: top.image.clone(),
            manifest: top.manifest.clone(),
            index: index.clone(),
            layers: keys.iter().filter_map(|key| self.layers.get(key)).collect(),
        });
    }
}
