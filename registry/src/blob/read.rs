//! Reading from a blob in a registry.

use super::reader::BlobReader;
use super::remote::RegistryBlob;
use super::stream::ResumingBody;
use crate::body::ByteStream;
use crate::digest::Digest;
use crate::error::{Error, Result};
use async_trait::async_trait;
use std::ops::Range;
use std::time::Duration;

#[async_trait]
impl BlobReader for RegistryBlob {
    fn size(&self) -> u64 {
        self.shared.size
    }

    fn digest(&self) -> &Digest {
        &self.shared.digest
    }

    async fn attempt(&self, range: Range<u64>, failures: u32) -> Result<ByteStream> {
        Self { once: Some(failures), ..self.clone() }.read_range(range).await
    }

    async fn read_range(&self, range: Range<u64>) -> Result<ByteStream> {
        if range.start > range.end || range.end > self.shared.size {
            return Err(Error::RangeNotSatisfiable {
                context: self.context(),
                start: range.start,
                end: range.end,
                size: self.shared.size,
            });
        }
        ResumingBody::start(self.clone(), range).await
    }

    fn round_trip(&self) -> Option<Duration> {
        let target = self.remembered(None)?;
        self.shared.client.transport().connections.round_trip(&target.url)
    }
}
