//! What all pulls share.

use std::sync::Arc;
use std::time::Duration;

use registry::Client;
use tokio::sync::Semaphore;

use super::options::{PullOptions, Surroundings};
use super::scratch::ScratchRoot;
use crate::image::OpenLayers;

/// After how long without a word from any registry the network counts as gone: longer than the patience with a stalled
/// server.
const SILENCE: Duration = Duration::from_secs(5);

/// How often that is looked at.
const STEP: Duration = Duration::from_millis(500);

/// What all pulls share.
#[derive(Debug)]
pub(super) struct PullContext {
    pub(super) client: Client,
    pub(super) layers: Arc<OpenLayers>,
    pub(super) scratch: Arc<ScratchRoot>,
    pub(super) options: PullOptions,
    pub(super) surroundings: Surroundings,
    /// Held while a layer is made ready for lazy reading.
    pub(super) lazy_slots: Semaphore,
    /// Held while a layer is fetched and unpacked.
    pub(super) unpack_slots: Semaphore,
}

impl PullContext {
    pub(super) fn new(
        client: Client,
        layers: Arc<OpenLayers>,
        scratch: Arc<ScratchRoot>,
        options: PullOptions,
        surroundings: Surroundings,
    ) -> Self {
        let options = options.at_least_one();
        let lazy_slots = Semaphore::new(options.parallel_layers);
        let unpack_slots = Semaphore::new(options.all_parallel_unpacks);
        Self { client, layers, scratch, options, surroundings, lazy_slots, unpack_slots }
    }

    /// What `job` comes to, if that is within `mount_timeout`. Time in which no registry says anything does not count:
    /// whatever else could be done would need the network, too. The job has to end by itself if it stays like that.
    pub(super) async fn in_time<T>(&self, job: impl Future<Output = T>) -> Option<T> {
        let mut job = std::pin::pin!(job);
        let mut left = self.options.mount_timeout;
        // Silence is noticed only when it has lasted: there must be time left then.
        let silence = SILENCE.min(left / 3);
        loop {
            let step = left.min(STEP);
            match tokio::time::timeout(step, &mut job).await {
                Ok(done) => return Some(done),
                Err(_) if self.client.heard_within(silence) => left -= step,
                Err(_) => {}
            }
            if left.is_zero() {
                return None;
            }
        }
    }
}
