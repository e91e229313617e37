//! Images that are being pulled: which index they have, and each layer made ready before containerd asks for it.
//!
//! containerd asks for one layer at a time, bottom first, and waits for each. So the first request for an image starts all
//! there is to do: the index is looked for, the zTOCs of all layers from the one asked for upwards are fetched at the same
//! time, and layers without one are fetched and unpacked into scratch directories ([`Scratch`]). A request then takes
//! what it is for ([`Outcome`]).
//!
//! Nothing that went wrong is remembered for longer than the pull it belongs to: a pull begins with a request for the
//! lowest layer, or for one that was asked for before, or after a pause. (containerd does not ask for the layers that it
//! has, such as those of a base image: the first request of a repeated pull is for the layer that failed.)

mod chosen;
mod options;
mod pull;
mod request;
mod scratch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::{Client, Descriptor, Digest};
use soci_index::oci::{ImageManifest, MAX_MANIFEST_SIZE};
use tokio::sync::Semaphore;
use ztoc::Ztoc;

pub use chosen::ChosenIndexes;
pub use options::{ContentOfNamespace, PullOptions, Surroundings, UNLIMITED};
pub use request::{LayerRequest, RequestError};
pub use scratch::{Scratch, ScratchRoot};

use crate::base::lock::lock;
use crate::foresight::forecast::Command;
use crate::image::{OpenLayer, OpenLayers};
use pull::Pull;

/// How long a pull that nobody asks anything of is remembered.
const IDLE: Duration = Duration::from_secs(60);

/// After how long without a word from any registry the network counts as gone: longer than the patience with a stalled server.
const SILENCE: Duration = Duration::from_secs(5);

/// How often that is looked at.
const STEP: Duration = Duration::from_millis(500);

/// What became of a layer.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is read lazily.
    Lazy {
        /// The layer; held so that it is not removed before it is committed.
        layer: Arc<OpenLayer>,
        /// Its zTOC, for the tree.
        ztoc: Arc<Ztoc>,
        /// The index that named the zTOC.
        index: Digest,
        /// Size of the compressed layer in bytes.
        size: u64,
        /// Whether it has hard links to files of layers below, so that it depends on these whether it can be mounted.
        links_below: bool,
    },
    /// It is unpacked on this disk.
    Unpacked {
        /// Where.
        scratch: Arc<Scratch>,
        /// Directories that it has something in but does not mention itself.
        implied: Arc<Vec<PathBuf>>,
        /// Size of the compressed layer in bytes.
        size: u64,
        /// Why it is not read lazily.
        reason: String,
    },
    /// containerd is to do it.
    Defer {
        /// Why.
        reason: String,
        /// Whether the image has an index at all.
        indexed: bool,
    },
}

/// An image whose layers have all been asked for.
#[derive(Debug)]
pub struct Pulled(Arc<Pull>);

impl Pulled {
    /// Digest of the image's manifest.
    pub(crate) fn manifest(&self) -> &Digest {
        self.0.manifest()
    }

    /// What a container of the image runs unless it is told otherwise.
    pub(crate) async fn command(&self) -> Option<Command> {
        self.0.command().await
    }
}

/// Where in its image a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Nothing is below it.
    Lowest,
    /// Others are below it.
    Higher,
    /// That cannot be found out, for this reason.
    Unknown(String),
}

/// The pulls under way.
#[derive(Debug)]
pub struct Images {
    client: Client,
    layers: Arc<OpenLayers>,
    scratch: Arc<ScratchRoot>,
    options: PullOptions,
    surroundings: Surroundings,
    lazy_slots: Arc<Semaphore>,
    unpack_slots: Arc<Semaphore>,
    pulls: Mutex<HashMap<request::PullKey, Arc<Pull>>>,
}

impl Images {
    /// No pulls yet.
    #[must_use]
    pub fn new(
        client: Client,
        layers: Arc<OpenLayers>,
        scratch: Arc<ScratchRoot>,
        options: PullOptions,
        surroundings: Surroundings,
    ) -> Self {
        let options = options.at_least_one();
        let lazy_slots = Arc::new(Semaphore::new(options.parallel_layers));
        let unpack_slots = Arc::new(Semaphore::new(options.all_parallel_unpacks));
        Self {
            client,
            layers,
            scratch,
            options,
            surroundings,
            lazy_slots,
            unpack_slots,
            pulls: Mutex::default(),
        }
    }

    /// What `job` comes to, if that is within `mount_timeout`. Time in which no registry says anything does not count: whatever
    /// else could be done would need the network, too. The job has to end by itself if it stays like that.
    async fn in_time<T>(&self, job: impl Future<Output = T>) -> Option<T> {
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

    /// Makes the layer ready that a request is for. `lowest`: it has no layers below it. Also returns the image if the
    /// layer is its topmost one, so that the pull is over.
    pub async fn layer(self: &Arc<Self>, request: &LayerRequest, lowest: bool) -> (Outcome, Option<Pulled>) {
        let pull = self.pull(request, lowest);
        let (outcome, is_last) = pull.layer(request).await;
        if is_last {
            // Nothing of it is remembered, and nothing that failed stands in the way of the next.
            self.forget(&request.key(), &pull);
        }
        (outcome, is_last.then(|| Pulled(pull)))
    }

    /// The request with the index that the configuration chooses, if the client has named none.
    #[must_use]
    pub fn with_chosen_index(&self, request: LayerRequest) -> LayerRequest {
        let chosen = || self.options.chosen_indexes.of(&request.reference).cloned();
        LayerRequest { index: request.index.clone().or_else(chosen), ..request }
    }

    /// The layers of the image that a request is for, if this machine knows them already.
    pub(crate) async fn layers_here(&self, request: &LayerRequest) -> Option<Vec<Descriptor>> {
        for place in (self.surroundings.content)(&request.namespace) {
            if let Some(json) = place.get(&request.manifest, MAX_MANIFEST_SIZE).await {
                return ImageManifest::parse(&json).ok().map(|manifest| manifest.layers);
            }
        }
        None
    }

    /// The layers of the image that a request was for, as its pull has found them.
    pub(crate) fn layers_found(
        &self,
        request: &LayerRequest,
        pulled: Option<&Pulled>,
    ) -> Option<Vec<Descriptor>> {
        match pulled {
            Some(Pulled(pull)) => pull.layers_found(),
            None => lock(&self.pulls).get(&request.key())?.layers_found(),
        }
    }

    /// Whether the layer that a request is for is the lowest of its image.
    pub async fn position(self: &Arc<Self>, request: &LayerRequest) -> Position {
        self.pull(request, true).place(request).await
    }

    /// The pull that a request belongs to.
    fn pull(self: &Arc<Self>, request: &LayerRequest, lowest: bool) -> Arc<Pull> {
        let mut pulls = lock(&self.pulls);
        pulls.retain(|_, pull| !pull.is_idle_for(IDLE));
        let key = request.key();
        if let Some(pull) = pulls.get(&key)
            && !(((lowest && pull.may_begin_with(request)) || pull.was_asked_for(&request.chain_id))
                && pull.is_spent())
        {
            pull.touch();
            return Arc::clone(pull);
        }
        let pull = Pull::start(Arc::clone(self), request.clone());
        pulls.insert(key, Arc::clone(&pull));
        pull
    }

    fn forget(&self, key: &request::PullKey, pull: &Arc<Pull>) {
        let mut pulls = lock(&self.pulls);
        if pulls.get(key).is_some_and(|known| Arc::ptr_eq(known, pull)) {
            pulls.remove(key);
        }
    }

    /// Lets go of pulls that nobody has asked anything of for a while, and of what they hold. Whether there were any.
    pub fn expire(&self) -> bool {
        let mut pulls = lock(&self.pulls);
        let before = pulls.len();
        pulls.retain(|_, pull| !pull.is_idle_for(IDLE));
        pulls.len() < before
    }

    /// Stops the pulls of an image that is being removed.
    pub fn cancel(&self, manifest: &Digest) {
        lock(&self.pulls).retain(|_, pull| pull.manifest() != manifest || pull.is_waited_for());
    }
}
