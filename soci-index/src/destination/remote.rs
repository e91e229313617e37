//! Images in a registry.

use std::sync::Arc;

use async_trait::async_trait;
use registry::{Client, Reference};

use super::copy::ImageDestination;
use super::error::DestinationError;
use super::progress::{Copied, CopyEvent, CopyProgress};
use super::shipment::{Part, Shipment};
use super::shipment::{concurrently, reported};
use crate::document::{Document, DocumentKind};

/// A name in a registry.
#[derive(Debug)]
pub struct RegistryDestination {
    client: Client,
    reference: Reference,
    tag: String,
    concurrent: usize,
}

impl RegistryDestination {
    /// The name `reference`, written to with so many blobs at a time.
    ///
    /// # Errors
    /// When the reference has no tag, or a digest: what an image is converted to has a digest of its own.
    pub fn new(client: Client, reference: Reference, concurrent: usize) -> Result<Self, DestinationError> {
        let spec = |reason: &str| DestinationError::Spec {
            given: reference.to_string(),
            reason: format!(
                "{reason}; the destination image must be a tagged ref of the form \"registry/repository:tag\""
            ),
        };
        if reference.digest().is_some() {
            return Err(spec("it has a digest"));
        }
        let tag = reference.tag().ok_or_else(|| spec("it has no tag"))?.to_owned();
        Ok(Self { client, reference, tag, concurrent: concurrent.max(1) })
    }

    async fn blob(
        &self,
        shipment: &Shipment,
        part: &Part,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        let (to, blob) = (self.reference.repository(), &part.blob);
        let from = shipment
            .repository(part)
            .filter(|from| from.api_host() == to.api_host() && from.name() != to.name());
        if let Some(from) = from
            && self.client.mount_blob(to, &blob.digest, from).await?
        {
            progress.blob(blob, CopyEvent::Done(Copied::Mounted));
            return Ok(());
        }
        let open = || async {
            progress.blob(blob, CopyEvent::Started);
            Ok(reported(shipment.open_for_client(part).await?, blob, progress))
        };
        let pushed = self.client.push_blob(to, &blob.digest, blob.size, open).await?;
        progress.blob(blob, CopyEvent::Done(if pushed { Copied::Moved } else { Copied::There }));
        Ok(())
    }

    async fn document(&self, document: &Document) -> Result<(), DestinationError> {
        let (to, descriptor) = (self.reference.repository(), &document.descriptor);
        self.client
            .push_manifest(to, &descriptor.digest, &descriptor.media_type, document.bytes.clone())
            .await?;
        Ok(())
    }
}

#[async_trait]
impl ImageDestination for RegistryDestination {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    async fn write(
        &self,
        shipment: &Shipment,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        let blobs = shipment.parts.iter().map(|part| self.blob(shipment, part, progress)).collect();
        concurrently(self.concurrent, blobs).await?;
        let (indexes, manifests): (Vec<&Document>, Vec<&Document>) =
            shipment.documents.iter().partition(|document| matches!(document.kind, DocumentKind::Index(_)));
        let manifests = manifests.into_iter().map(|document| self.document(document)).collect();
        concurrently(self.concurrent, manifests).await?;
        for index in indexes {
            self.document(index).await?;
        }
        let root = &shipment.root;
        let (to, media_type) = (self.reference.repository(), &root.descriptor.media_type);
        self.client.push_manifest(to, self.tag.as_str(), media_type, root.bytes.clone()).await?;
        Ok(())
    }
}
