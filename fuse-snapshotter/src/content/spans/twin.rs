//! The same content in another blob, for when the layer's own cannot be had any more.
//!
//! Two images that were built from the same files, but compressed anew, have equal chain IDs and so one snapshot, which
//! is read by the layer of the image that was pulled first. When its repositories have all refused, the other image's
//! layer serves as well: it is fetched whole, inflated and verified, and spans are taken out of the copy.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::base::lock::lock;
use crate::content::contents::LayerContents;

/// Most twins of a layer.
const MAX_TWINS: usize = 4;

/// How long twins that could not be had are left alone.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The layer's own repositories are asked so often before all of another layer is fetched, unless they say that it is
/// gone.
pub(crate) const TRIES: u32 = 4;

/// The wait before the second time; doubled with each.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Another blob with the same uncompressed content.
#[async_trait]
pub(crate) trait Twin: Send + Sync {
    /// What tells it from others.
    fn name(&self) -> &str;

    /// A copy of the content, in a file of its own in `directory`, verified. It is at most `limit` bytes long.
    async fn copy(&self, directory: &Path, limit: u64) -> Result<File, String>;
}

/// The twins of a layer.
#[derive(Default)]
pub(crate) struct Twins {
    known: RwLock<Vec<Arc<dyn Twin>>>,
    copy: tokio::sync::OnceCell<Arc<File>>,
    failed: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Twins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twins").finish_non_exhaustive()
    }
}

impl Twins {
    /// Adds a blob with the same content.
    pub(crate) fn add(&self, twin: Arc<dyn Twin>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_TWINS && known.iter().all(|other| other.name() != twin.name()) {
            known.push(twin);
        }
    }

    fn known(&self) -> Vec<Arc<dyn Twin>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is worth asking one of them.
    pub(super) fn are_there(&self) -> bool {
        let failed = lock(&self.failed).is_some_and(|when| when.elapsed() < GIVE_UP);
        !failed && !self.known.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A verified copy of the content of one of them, made once.
    pub(super) async fn copy(&self, contents: &LayerContents) -> Option<Arc<File>> {
        if !self.are_there() {
            return None;
        }
        match self.copy.get_or_try_init(|| self.make_copy(contents)).await {
            Ok(copy) => Some(Arc::clone(copy)),
            Err(reason) => {
                *lock(&self.failed) = Some(Instant::now());
                tracing::warn!(layer = %contents.digest(), reason, "no other image's layer can be read instead");
                None
            }
        }
    }

    async fn make_copy(&self, contents: &LayerContents) -> Result<Arc<File>, String> {
        let spans = contents.table().spans();
        let limit = spans.len().checked_sub(1).map_or(0, |last| spans.uncompressed(last).end);
        let mut reasons = Vec::new();
        for twin in self.known() {
            tracing::warn!(layer = %contents.digest(), twin = twin.name(), bytes = limit,
                "the layer cannot be read any more; fetching one with the same content");
            match twin.copy(contents.directory(), limit).await {
                Ok(copy) => return Ok(Arc::new(copy)),
                Err(reason) => reasons.push(format!("{}: {reason}", twin.name())),
            }
        }
        Err(reasons.join("; "))
    }
}
