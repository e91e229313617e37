//! What is fetched although no reader is blocked on it.

pub(crate) mod background;
pub(crate) mod expected;
pub(crate) mod readahead;
pub(crate) mod speculative;
