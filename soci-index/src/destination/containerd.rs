//! Images in containerd's content store.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use registry::ByteStream;

use super::copy::ImageDestination;
use super::error::DestinationError;
use super::progress::{Copied, CopyEvent, CopyProgress};
use super::shipment::concurrently;
use super::shipment::{Part, Shipment};
use crate::containerd::labels::{self, Labels};
use crate::containerd::{Containerd, Written};
use crate::document::{Document, DocumentKind};

/// A name in containerd.
#[derive(Debug)]
pub struct ContainerdDestination {
    containerd: Containerd,
    name: String,
    concurrent: usize,
}

impl ContainerdDestination {
    /// The image `name`, written with so many blobs at a time. The connection should be that of a
    /// [lease](crate::containerd::Lease), which keeps what is written until the name does.
    pub fn new(containerd: Containerd, name: impl Into<String>, concurrent: usize) -> Self {
        Self { containerd, name: name.into(), concurrent: concurrent.max(1) }
    }

    async fn blob(
        &self,
        shipment: &Shipment,
        part: &Part,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        let blob = &part.blob;
        let mut labels = Labels::new();
        if let Some(repository) = shipment.repository(part) {
            labels.extend(labels::distribution_source(repository, &Labels::new()));
        }
        let open = |offset: u64| async move {
            progress.blob(blob, CopyEvent::Started);
            Ok(skip(shipment.open_for_client(part).await?, offset))
        };
        let name = format!("layer-{}", blob.digest);
        let advanced = |bytes| progress.blob(blob, CopyEvent::Advanced(bytes));
        let written = self.containerd.write_content(&name, blob, &labels, open, advanced).await?;
        let how = if written == Written::New { Copied::Moved } else { Copied::There };
        progress.blob(blob, CopyEvent::Done(how));
        Ok(())
    }

    async fn document(&self, document: &Document) -> Result<(), DestinationError> {
        let labels = match &document.kind {
            DocumentKind::Index(index) => labels::of_image_index(index),
            DocumentKind::Image(manifest) => labels::of_image_manifest(manifest),
            DocumentKind::Soci(index, _) => labels::of_soci_index(index),
            DocumentKind::Other(_) => Labels::new(),
        };
        let name = format!("manifest-{}", document.descriptor.digest);
        self.containerd.put_content(&name, document.bytes.clone(), labels).await?;
        Ok(())
    }
}

/// The bytes from `offset` on.
fn skip(bytes: ByteStream, offset: u64) -> ByteStream {
    let mut left = offset;
    bytes
        .map_ok(move |mut piece| {
            let cut = left.min(piece.len() as u64);
            left -= cut;
            piece.split_off(cut as usize)
        })
        .boxed()
}

#[async_trait]
impl ImageDestination for ContainerdDestination {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn may_be_partial(&self) -> bool {
        true
    }

    async fn write(
        &self,
        shipment: &Shipment,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        let blobs = shipment.parts.iter().map(|part| self.blob(shipment, part, progress)).collect();
        concurrently(self.concurrent, blobs).await?;
        for document in shipment.documents.iter().chain([&shipment.root]) {
            self.document(document).await?;
        }
        Ok(self.containerd.put_image(&self.name, &shipment.root.descriptor).await?)
    }
}
