//! What is written to a destination, and where its bytes come from.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use registry::{ByteStream, Descriptor, Repository};

use super::error::DestinationError;
use super::progress::{CopyEvent, CopyProgress};
use crate::document::Document;
use crate::source::{Check, ImageSource};
use crate::store::Store;

/// Where a blob's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the image that is copied.
    Source,
    /// In the artifact store.
    Store,
    /// Here.
    Inline(Bytes),
}

/// A blob of a shipment.
#[derive(Debug, Clone)]
pub struct Part {
    /// Media type, digest and size.
    pub blob: Descriptor,
    /// Where its bytes are.
    pub origin: Origin,
}

/// An image on its way.
pub struct Shipment {
    /// The blobs, each once.
    pub parts: Vec<Part>,
    /// Manifests and indexes, children before those that list them, the root last.
    pub documents: Vec<Document>,
    /// The root.
    pub root: Document,
    /// Where [`Origin::Source`] is.
    pub source: Arc<dyn ImageSource>,
    /// Where [`Origin::Store`] is.
    pub store: Store,
}

impl Shipment {
    /// The repository that a blob is in already, if it is in one.
    pub fn repository(&self, part: &Part) -> Option<&Repository> {
        self.source.repository().filter(|_| part.origin == Origin::Source)
    }

    /// A blob's bytes, which end with an error unless they have the right size and digest.
    ///
    /// # Errors
    /// When the blob is not there.
    pub async fn open(&self, part: &Part) -> Result<ByteStream, DestinationError> {
        Ok(match &part.origin {
            Origin::Source => self.source.open_blob(&part.blob, Check::BySource).await?,
            Origin::Store => self.store.stream(&part.blob).await?,
            Origin::Inline(bytes) if bytes.len() as u64 != part.blob.size => {
                return Err(unreadable(part, &"its size is not what the manifest says").into());
            }
            Origin::Inline(bytes) => futures::stream::iter([Ok(bytes.clone())]).boxed(),
        })
    }

    /// As [`Self::open`], in the words of the registry client, which wants the bytes again for each try.
    pub(super) async fn open_for_client(&self, part: &Part) -> Result<ByteStream, registry::Error> {
        self.open(part).await.map_err(|error| match error {
            DestinationError::Registry(error) => error,
            DestinationError::Source(error) => match *error {
                crate::source::SourceError::Registry(error) => error,
                other => unreadable(part, &other),
            },
            other => unreadable(part, &other),
        })
    }
}

fn unreadable(part: &Part, error: &dyn std::fmt::Display) -> registry::Error {
    registry::Error::io(part.blob.digest.as_str().as_ref(), std::io::Error::other(error.to_string()))
}

/// `bytes`, of which each piece is reported as it passes.
pub(super) fn reported(bytes: ByteStream, blob: &Descriptor, progress: &Arc<dyn CopyProgress>) -> ByteStream {
    let (blob, progress) = (blob.clone(), Arc::clone(progress));
    bytes.inspect_ok(move |piece| progress.blob(&blob, CopyEvent::Advanced(piece.len() as u64))).boxed()
}

/// Does all of `work`, so many at a time, up to the first error.
pub(super) async fn concurrently<F>(at_a_time: usize, work: Vec<F>) -> Result<(), DestinationError>
where
    F: Future<Output = Result<(), DestinationError>> + Send,
{
    futures::stream::iter(work).buffer_unordered(at_a_time).try_collect::<()>().await
}
