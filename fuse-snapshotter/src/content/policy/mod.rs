//! What is fetched although no reader waits for it, each by a [fetcher](crate::content::spans::fetcher) that it is
//! handed.
//!
//! * [`readahead`]: what comes along with a reader's request.
//! * [`expected`]: what readers are known to ask for soon.
//! * [`speculative`]: the rest of a file of which something was read.
//! * [`background`]: all else, while nobody asks.

pub(crate) mod background;
pub(crate) mod expected;
pub(crate) mod readahead;
pub(crate) mod speculative;

/// A file of at most so many spans is likely to be wanted as a whole.
const WHOLE: usize = 5;
