//! Somewhere an image can be written to, and what is told meanwhile.

use std::sync::Arc;

use async_trait::async_trait;

use super::error::DestinationError;
use super::progress::CopyProgress;
use super::shipment::Shipment;

/// A place that an image can be written to.
#[async_trait]
pub trait ImageDestination: Send + Sync {
    /// How the image will be called there, in the form in which [`crate::source::SourceSpec`] is shown.
    fn name(&self) -> String;

    /// Whether an image may be there without the platforms that nobody asked for.
    fn may_be_partial(&self) -> bool {
        false
    }

    /// Writes an image. The descriptor of its root is that of the last document.
    ///
    /// # Errors
    /// When something cannot be read or written. The name then stands for what it stood for before.
    async fn write(
        &self,
        shipment: &Shipment,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError>;
}
