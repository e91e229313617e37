//! The pulls under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::{Client, Descriptor, Digest};
use soci_index::oci::{ImageManifest, MAX_MANIFEST_SIZE};

use super::context::PullContext;
use super::error::WhyUnplaced;
use super::image_pull::Pull;
use super::options::{PullOptions, Surroundings};
use super::pulled_layer::{Position, PulledLayer};
use super::request::{LayerRequest, PullKey};
use super::scratch::ScratchRoot;
use crate::base::lock::lock;
use crate::foresight::forecast::Command;
use crate::image::OpenLayers;

/// How long a pull that nobody asks anything of is remembered.
const IDLE: Duration = Duration::from_secs(60);

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

/// The pulls under way.
#[derive(Debug)]
pub struct Images {
    context: Arc<PullContext>,
    pulls: Mutex<HashMap<PullKey, Arc<Pull>>>,
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
        let context = Arc::new(PullContext::new(client, layers, scratch, options, surroundings));
        Self { context, pulls: Mutex::default() }
    }

    /// Makes the layer ready that a request is for. `lowest`: it has no layers below it. Also returns the image if the
    /// layer is its topmost one, so that the pull is over.
    pub async fn layer(&self, request: &LayerRequest, lowest: bool) -> (PulledLayer, Option<Pulled>) {
        let pull = self.pull(request, lowest);
        let (made, is_last) = pull.layer(request).await;
        if is_last {
            // Nothing of it is remembered, and nothing that failed stands in the way of the next.
            self.forget(&request.key(), &pull);
        }
        (made, is_last.then(|| Pulled(pull)))
    }

    /// The request with the index that the configuration chooses, if the client has named none.
    #[must_use]
    pub fn with_chosen_index(&self, request: LayerRequest) -> LayerRequest {
        let chosen = || self.context.options.chosen_indexes.of(&request.reference).cloned();
        LayerRequest { index: request.index.clone().or_else(chosen), ..request }
    }

    /// The layers of the image that a request is for, if this machine knows them already.
    pub(crate) async fn layers_here(&self, request: &LayerRequest) -> Option<Vec<Descriptor>> {
        for place in (self.context.surroundings.content)(&request.namespace) {
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
    pub async fn position(&self, request: &LayerRequest) -> Result<Position, WhyUnplaced> {
        self.pull(request, true).place(request).await
    }

    /// The pull that a request belongs to.
    fn pull(&self, request: &LayerRequest, lowest: bool) -> Arc<Pull> {
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
        let pull = Pull::start(Arc::clone(&self.context), request.clone());
        pulls.insert(key, Arc::clone(&pull));
        pull
    }

    fn forget(&self, key: &PullKey, pull: &Arc<Pull>) {
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
