//! Removing layers that no snapshot uses any more.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use super::layer_key::LayerKey;
use super::open::OpenLayers;
use super::open_layer::OpenLayer;
use crate::base::lock::lock;

/// What [`OpenLayers::collect`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The layers that were removed.
    pub removed: Vec<LayerKey>,
    /// Whether there are layers that no snapshot uses, but somebody holds: a pull, or a tree that is being mounted.
    pub held: bool,
}

impl OpenLayers {
    /// Removes layers that no snapshot uses: what was fetched of them, and their zTOCs. `used` is asked for the layers
    /// in use once no layer can be opened any more.
    ///
    /// # Errors
    /// Those of `used`, and of the disk.
    pub fn collect<E: From<std::io::Error>>(
        &self,
        used: impl FnOnce() -> Result<HashSet<LayerKey>, E>,
    ) -> Result<Collected, E> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        // In this order: whoever prepares a layer lets go of it only after the snapshot is in the store.
        let idle = |layer: &Arc<OpenLayer>| Arc::strong_count(layer) == 1;
        let busy: HashSet<LayerKey> =
            lock(&self.open).iter().filter(|(_, layer)| !idle(layer)).map(|(key, _)| key.clone()).collect();
        let used = used()?;
        let wanted = |key: &LayerKey| used.contains(key) || busy.contains(key);
        let mut removed: Vec<_> =
            lock(&self.open).extract_if(|key, _| !wanted(key)).map(|(key, _)| key).collect();
        // Layers of an earlier process that nothing has opened since.
        for name in self.numbers.numbered().map_err(std::io::Error::other)? {
            let key = LayerKey::parse(&name);
            if key.as_ref().is_some_and(wanted) {
                continue;
            }
            self.numbers.forget(&name).map_err(std::io::Error::other)?;
            removed.extend(key.filter(|key| !removed.contains(key)));
        }
        for key in &removed {
            tracing::info!(layer = %key.layer, "no snapshot uses the layer any more");
            if !self.keep_cache {
                self.shared.cache().discard(key.layer.hex(), key.ztoc.hex());
            }
        }
        let ztocs: HashSet<_> = used.iter().chain(&busy).map(|key| key.ztoc.hex().to_owned()).collect();
        self.ztocs.retain(|hex| ztocs.contains(hex))?;
        self.forget_metrics(&removed);
        let held = busy.iter().any(|key| !used.contains(key));
        Ok(Collected { removed, held })
    }

    /// Shows removed layers in the metrics no longer.
    fn forget_metrics(&self, removed: &[LayerKey]) {
        let open: HashSet<_> = lock(&self.open).keys().map(|key| key.layer.clone()).collect();
        for key in removed.iter().filter(|key| !open.contains(&key.layer)) {
            self.shared.metrics().remove_layer(&key.layer);
        }
    }
}
