//! Telling the kernel to drop pages of files.

use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use tokio::runtime::Handle;

/// How long a look-up waits until pages are dropped. The kernel waits for reads of the same pages that are under way.
const PATIENCE: Duration = Duration::from_millis(50);

/// Most ranges of a file whose pages are dropped. Only a file that was fetched in many small ranges has more.
const MAX_RANGES: usize = 256;

/// Drops pages of files.
#[derive(Clone, Default)]
pub(super) struct Pages {
    /// Set once the file system is served, and there until it is unmounted.
    notifier: Arc<OnceLock<Weak<Notifier>>>,
}

impl Pages {
    pub(super) fn served_by(&self, notifier: &Arc<Notifier>) {
        let _ = self.notifier.set(Arc::downgrade(notifier));
    }

    /// Drops the pages of these ranges of a file. Returns whether that was done in a short while. It is done on a
    /// thread of its own, because the threads that answer the kernel must be free for the reads that it waits for.
    pub(super) async fn drop_of(&self, number: u64, mut ranges: Vec<Range<u64>>, runtime: &Handle) -> bool {
        let Some(notifier) = self.notifier.get().and_then(Weak::upgrade) else { return false };
        let all = ranges.len() <= MAX_RANGES;
        ranges.truncate(MAX_RANGES);
        let dropping = runtime.spawn_blocking(move || {
            ranges.into_iter().all(|range| {
                let (Ok(start), Ok(length)) =
                    (i64::try_from(range.start), i64::try_from(range.end - range.start))
                else {
                    return false;
                };
                match notifier.inval_inode(INodeNo(number), start, length) {
                    Ok(()) => true,
                    // The kernel knows no such file, and so has no pages of it.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                    Err(error) => {
                        tracing::debug!(%error, "the kernel cannot be told to drop pages");
                        false
                    }
                }
            })
        });
        all && matches!(tokio::time::timeout(PATIENCE, dropping).await, Ok(Ok(true)))
    }
}
