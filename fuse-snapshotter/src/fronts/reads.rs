//! How a read is answered: at once with what is in the cache, else by the async runtime when the content has come.
//!
//! The threads that take requests from the kernel never wait for the network.

use std::cell::RefCell;

use fuser::{Errno, ReplyData};
use tokio::runtime::Handle;

use super::forest::FsError;
use super::stats::FuseStats;

thread_local! {
    /// Each thread that takes requests reads into a buffer of its own.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers a read if `cached` fills the buffer, or fails. Else it returns what `cached` left to be waited for, for
/// [`answer_later`].
///
/// `answered` gets the bytes after the kernel has them.
pub(super) fn answer_now<W>(
    reply: ReplyData,
    cached: impl FnOnce(&mut Vec<u8>) -> Result<Option<W>, FsError>,
    answered: impl FnOnce(&[u8]),
    failed: impl FnOnce(&FsError) -> Errno,
) -> Option<(W, ReplyData)> {
    BUFFER.with_borrow_mut(|buffer| match cached(buffer) {
        Ok(None) => {
            reply.data(buffer);
            answered(buffer);
            None
        }
        Ok(Some(waiting)) => Some((waiting, reply)),
        Err(error) => {
            reply.error(failed(&error));
            None
        }
    })
}

/// Answers a read as soon as its content is there. It counts as one that had to wait.
pub(super) fn answer_later(
    runtime: &Handle,
    stats: &FuseStats,
    reply: ReplyData,
    content: impl Future<Output = Result<Vec<u8>, FsError>> + Send + 'static,
    answered: impl FnOnce(&[u8]) + Send + 'static,
    failed: impl FnOnce(&FsError) -> Errno + Send + 'static,
) {
    stats.count_miss();
    runtime.spawn(async move {
        match content.await {
            Ok(bytes) => {
                reply.data(&bytes);
                answered(&bytes);
            }
            Err(error) => reply.error(failed(&error)),
        }
    });
}
