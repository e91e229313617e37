//! What is fetched although no reader is blocked on it.

mod background;
mod expected;
pub(crate) mod readahead;
mod speculative;
