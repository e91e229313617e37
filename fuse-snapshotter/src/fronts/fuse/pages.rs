//! Pages that the kernel keeps, and is told to drop.

use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use tokio::runtime::Handle;

/// How long a look-up waits for it. The kernel waits for reads of the same pages that are under way.
const PATIENCE: Duration = Duration::from_millis(50);

/// Most parts of a file whose pages are dropped one by one; more than a file has that is not fetched in bits.
const MAX_PARTS: usize = 256;

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

    /// Drops the pages of these parts of a file; whether that is done after a short while. It is done on a thread of
    /// its own, because those that answer the kernel must be free to answer the reads that it waits for.
    pub(super) async fn drop_of(&self, number: u64, mut parts: Vec<Range<u64>>, runtime: &Handle) -> bool {
        let Some(notifier) = self.notifier.get().and_then(Weak::upgrade) else { return false };
        let all = parts.len() <= MAX_PARTS;
        parts.truncate(MAX_PARTS);
        let dropping = runtime.spawn_blocking(move || {
            parts.into_iter().all(|part| {
                let (Ok(start), Ok(length)) =
                    (i64::try_from(part.start), i64::try_from(part.end - part.start))
                else {
                    return false;
                };
                match notifier.inval_inode(INodeNo(number), start, length) {
                    Ok(()) => true,
                    // It knows no such file, and so has no pages of it.
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
