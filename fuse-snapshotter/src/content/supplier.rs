//! Who brings the bytes of a layer into its cache.

use std::ops::Range;

use async_trait::async_trait;

use super::error::FetchError;

/// Brings bytes of one layer into its cache: verified, or not at all.
#[async_trait]
pub(crate) trait Supplier: Send + Sync {
    /// A reader waits for a range of an entry's content: fetches what the cache lacks of it, and waits for what others
    /// are fetching.
    ///
    /// # Errors
    /// If some of it cannot be had.
    async fn supply(&self, entry: usize, range: &Range<u64>) -> Result<Supply, FetchError>;
}

/// What came of asking a supplier.
#[derive(Debug)]
pub(crate) enum Supply {
    /// Nothing was missing.
    Nothing,
    /// What was missing has come.
    Complete,
    /// Some of it was given up for something more urgent: ask again.
    Interrupted,
    /// A fetch that somebody else had begun has failed. It may have had other credentials, or have begun when the
    /// registry was down: ask again, once.
    OthersFailed(FetchError),
}
