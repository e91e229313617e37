//! A blob of which ranges can be read.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;

use crate::body::ByteStream;
use crate::digest::Digest;
use crate::error::Result;

/// Ranged reads of one immutable blob, wherever it is.
#[async_trait]
pub trait BlobReader: Send + Sync {
    /// Size of the blob in bytes.
    fn size(&self) -> u64;

    /// Digest of the whole blob. Ranges are not verified against it: they cannot be.
    fn digest(&self) -> &Digest;

    /// The bytes `range.start..range.end`, in pieces of any size. The stream gives exactly these bytes and ends, or
    /// its last item is an error; it never gives more, and never ends early without an error.
    ///
    /// # Errors
    /// [`Error::RangeNotSatisfiable`](crate::Error::RangeNotSatisfiable) if the range does not lie within the blob;
    /// others as the source has them.
    async fn read_range(&self, range: Range<u64>) -> Result<ByteStream>;

    /// One try of what [`BlobReader::read_range`] does, for those who have other places to ask, or patience of their
    /// own. A connection that breaks ends the stream with an error, too. `failures`: how often the read has failed
    /// already; a server that is slow gets more time with each.
    ///
    /// # Errors
    /// As [`BlobReader::read_range`].
    async fn attempt(&self, range: Range<u64>, failures: u32) -> Result<ByteStream> {
        let _ = failures;
        self.read_range(range).await
    }

    /// The shortest time that an answer has taken over a connection which was open already, where that is known.
    fn round_trip(&self) -> Option<Duration> {
        None
    }
}
