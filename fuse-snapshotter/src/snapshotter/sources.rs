//! Which repositories have the layers of a snapshot.
//!
//! A snapshot is made once, for the image that was pulled first; images that come later find it there. Their
//! repositories have its layers, too, and are remembered with it: the first image may be removed, its repository
//! deleted, and its login expire, while containers of the others go on reading.

use std::sync::Arc;

use registry::Descriptor;

use super::error::SnapshotError;
use super::layer_runs::chain_id;
use super::pull::LayerRequest;
use super::record::Record;
use super::service::Snapshotter;
use crate::image::{Chain, OtherSource, name_of};

impl Snapshotter {
    /// A layer of an image is there already, as `target`.
    pub(super) async fn note_repository_of(self: &Arc<Self>, request: &LayerRequest, target: &str) {
        let layers = self.images.layers_here(request).await;
        self.note_repository(request, layers, target).await;
    }

    /// An image is being prepared whose topmost layer so far is the committed snapshot `top`: its repository is added
    /// to its layers that are open, and to the records of that snapshot and of all below. What fails costs no more than
    /// this knowledge.
    pub(super) async fn note_repository(
        self: &Arc<Self>,
        request: &LayerRequest,
        layers: Option<Vec<Descriptor>>,
        top: &str,
    ) {
        if let Some(layers) = &layers {
            self.layers.add_repository(layers, request.reference.repository());
        }
        if top.is_empty() {
            return;
        }
        if let Err(error) = self.note_chain(request, layers, top).await {
            tracing::debug!(image = %request.reference, %error, "cannot note another source of layers");
        }
    }

    async fn note_chain(
        self: &Arc<Self>,
        request: &LayerRequest,
        layers: Option<Vec<Descriptor>>,
        top: &str,
    ) -> Result<(), SnapshotError> {
        // What is read here is written back.
        let _noting = self.noting.lock().await;
        let snapshot = {
            let top = top.to_owned();
            self.store(move |store| store.get_any(&top)).await?
        };
        let chain = snapshot.as_chain();
        let layers = layers.unwrap_or_default();
        for (position, node) in chain.iter().enumerate() {
            let Some(mut record) = Record::of(node) else { continue };
            let Some(key) = record.lazy() else { continue };
            // Bottom first: equal chain IDs have equal numbers of layers.
            let there = layers.get(chain.len() - 1 - position);
            let is_own = position == 0 && request.chain_id == chain_id(node);
            let (layer, size) = match there {
                Some(layer) => (layer.digest.clone(), layer.size),
                None if is_own && request.layer == record.layer => (record.layer.clone(), record.size),
                None => continue,
            };
            let repository = name_of(request.reference.repository());
            let other = OtherSource { repository, layer, size };
            if !record.add_source(other.clone()) {
                continue;
            }
            if let Some(open) = self.layers.get(&key)
                && other.layer != record.layer
            {
                let below = chain.get(position + 1).map(|below| chain_id(below).to_owned());
                self.layers.add_twin(&open, &other, Chain { own: chain_id(node).to_owned(), below });
            } else {
                let same = Descriptor::new(String::new(), other.layer.clone(), other.size);
                self.layers.add_repository(&[same], request.reference.repository());
            }
            if let Some(json) = record.encode() {
                let key = node.key.clone();
                self.store(move |store| store.set_record(&key, &json)).await?;
            }
        }
        Ok(())
    }
}
