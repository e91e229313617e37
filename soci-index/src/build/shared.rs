//! What builds of the layers of one image share.

use std::sync::Arc;

use registry::{Descriptor, Digest};
use tokio::sync::Semaphore;
use ztoc::Ztoc;

use super::budget::MemoryBudget;
use super::created::{LayerResult, LayerZtoc};
use super::error::CreateError;
use super::layer::{self, BuildLayerError, Format, Outcome};
use super::options::BuildOptions;
use super::options::layer_record;
use super::progress::{LayerEvent, Progress};
use crate::manifest::{MAX_ZTOC_SIZE, ZtocKind};
use crate::source::ImageSource;
use crate::store::{Record, Store, StoreError};

/// What decides about a layer's zTOC within one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LayerKey {
    digest: Digest,
    media_type: String,
    size: u64,
}

impl LayerKey {
    pub(super) fn of(layer: &Descriptor) -> Self {
        Self { digest: layer.digest.clone(), media_type: layer.media_type.clone(), size: layer.size }
    }
}

pub(super) struct Shared {
    pub(super) source: Arc<dyn ImageSource>,
    pub(super) store: Store,
    pub(super) options: BuildOptions,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) permits: Semaphore,
    pub(super) memory: Arc<MemoryBudget>,
}

impl Shared {
    pub(super) async fn layer(
        &self,
        layer: &Descriptor,
        format: Format,
        known: Vec<Record>,
    ) -> Result<LayerResult, CreateError> {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(CreateError::Internal("the layer budget is closed".into()));
        };
        for record in known {
            let _memory = self.memory.reserve(record.size.min(MAX_ZTOC_SIZE)).await;
            if let Some(ztoc) = self.reuse(&record).await? {
                self.progress.layer(layer, LayerEvent::Reused(&ztoc.digest));
                return Ok(Ok(ztoc));
            }
        }
        let mut estimate = layer::estimate(layer, format, &self.options);
        let (built, compression, memory) = loop {
            let memory = self.memory.reserve(estimate).await;
            self.progress.layer(layer, LayerEvent::Started);
            let advanced = |bytes| self.progress.layer(layer, LayerEvent::Advanced(bytes));
            match layer::build(&*self.source, layer, format, &self.options, memory, advanced).await {
                Ok(Outcome::Built(built, compression, memory)) => break (built, compression, memory),
                Ok(Outcome::Refused(error)) => {
                    let reason = crate::text::excerpt(&error.to_string());
                    self.progress.layer(layer, LayerEvent::Failed(&reason));
                    return Ok(Err(Some(reason)));
                }
                Ok(Outcome::Crowded(needed)) => {
                    tracing::debug!(layer = %layer.digest, needed, "too little memory beside other layers; starting again");
                    self.progress.layer(layer, LayerEvent::Postponed);
                    // Twice as much, so that it does not come to this for every further step.
                    estimate = needed.saturating_mul(2);
                }
                Err(BuildLayerError::Source(error)) => return Err(error.into()),
                Err(BuildLayerError::Internal(reason)) => {
                    return Err(CreateError::Internal(format!("layer {}: {reason}", layer.digest)));
                }
            }
        };
        let size = built.bytes.len() as u64;
        if size > MAX_ZTOC_SIZE {
            let reason = format!("its zTOC would have {size} bytes; a larger --span-size makes it smaller");
            self.progress.layer(layer, LayerEvent::Failed(&reason));
            return Ok(Err(Some(reason)));
        }
        let kind = ZtocKind::of(compression);
        let digest = self.store.put(built.bytes).await?;
        let ztoc = LayerZtoc { kind, digest, size, has_xattrs: built.has_xattrs };
        let mut record = layer_record(&self.options, ztoc.digest.clone(), size, layer.digest.clone());
        kind.media_type().clone_into(&mut record.media_type);
        record.stamp();
        self.store.record(vec![record]).await?;
        drop(memory);
        self.progress.layer(layer, LayerEvent::Built(&ztoc.digest));
        Ok(Ok(ztoc))
    }

    /// The zTOC of a record, if its blob is there and intact.
    async fn reuse(&self, record: &Record) -> Result<Option<LayerZtoc>, StoreError> {
        let Some(kind) = ZtocKind::from_media_type(&record.media_type) else { return Ok(None) };
        if record.size > MAX_ZTOC_SIZE || !self.store.adopt(&record.digest, record.size).await? {
            return Ok(None);
        }
        // Not looked at without the optimisation.
        let has_xattrs = !self.options.optimize_xattrs || {
            let bytes = self.store.get(&record.digest, MAX_ZTOC_SIZE).await?;
            let Ok(ztoc) = Ztoc::parse(bytes) else { return Ok(None) };
            ztoc.entries()
                .any(|entry| entry.name.ends_with(b".wh..wh..opq") || entry.xattrs().next().is_some())
        };
        Ok(Some(LayerZtoc { kind, digest: record.digest.clone(), size: record.size, has_xattrs }))
    }
}
