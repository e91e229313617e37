//! The response to a ranged read.

use crate::transport::Reply;

/// A response that holds wanted bytes, maybe after unwanted ones.
#[derive(Debug)]
pub(super) struct OpenBody {
    pub(super) reply: Reply,
    /// Bytes still to be thrown away before the wanted ones.
    pub(super) skip: u64,
    /// The wanted bytes in it end here.
    pub(super) end: u64,
}

impl OpenBody {
    pub(super) fn new(reply: Reply, skip: u64, end: u64) -> Self {
        reply.pace.traffic.enter();
        Self { reply, skip, end }
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.reply.pace.traffic.leave();
    }
}
