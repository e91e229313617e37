//! The layers that the daemon serves.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use registry::{BlobReader, Client, Descriptor, Reference, Repository};
use tokio::sync::watch;
use ztoc::Ztoc;

use super::assemble::{LayerParts, OpenError, ParsedZtoc};
use super::blob_opener::OpenedBlobs;
use super::layer_blob;
use super::layer_key::LayerKey;
use super::layer_numbers::LayerNumbers;
use super::open_layer::{Background, OpenLayer};
use super::origin::ImageOrigin;
use super::recorded_layer::{OtherSource, RecordedLayer};
use super::sources::{MAX_SOURCES, Seek, Sources, name_of};
use super::twin::{Chain, OtherLayer};
use super::ztocs::{ShelvedZtoc, ZtocShelf};
use crate::base::lock::lock;
use crate::base::metrics::Scrape;
use crate::content::{FetchContext, LazyLayer};

/// All layers that are read lazily, each once.
#[derive(Debug)]
pub struct OpenLayers {
    pub(super) ztocs: Arc<ZtocShelf>,
    pub(super) shared: FetchContext,
    pub(super) numbers: Arc<dyn LayerNumbers>,
    client: Client,
    background: bool,
    pub(super) keep_cache: bool,
    pub(super) open: Mutex<HashMap<LayerKey, Arc<OpenLayer>>>,
    /// Held for reading by whoever opens a layer, for writing by whoever removes some, so that no layer goes between
    /// being opened and being used.
    pub(super) gate: RwLock<()>,
    /// Told when a layer was opened.
    opened: watch::Sender<()>,
    seek: Seeking,
}

/// Who finds more sources of layers, once there is somebody.
#[derive(Default)]
struct Seeking(OnceLock<Arc<dyn Seek>>);

impl std::fmt::Debug for Seeking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seeking").finish_non_exhaustive()
    }
}

/// Settings of [`OpenLayers`].
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Fetch the rest of each layer while nobody reads.
    pub background: bool,
    /// Keep a layer's cached contents when its last snapshot is gone.
    pub keep_cache: bool,
}

impl OpenLayers {
    /// Layers whose zTOCs are kept in `directory`, which have their numbers from `numbers`, and which are read through
    /// `client`.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn new(
        directory: &Path,
        shared: FetchContext,
        numbers: Arc<impl LayerNumbers + 'static>,
        client: Client,
        options: OpenOptions,
    ) -> std::io::Result<Self> {
        Ok(Self {
            ztocs: Arc::new(ZtocShelf::open(directory)?),
            shared,
            numbers,
            client,
            background: options.background,
            keep_cache: options.keep_cache,
            open: Mutex::default(),
            gate: RwLock::default(),
            opened: watch::Sender::new(()),
            seek: Seeking::default(),
        })
    }

    /// Says who finds more sources of layers when those that are known fail.
    pub(crate) fn seek_with(&self, seek: Arc<dyn Seek>) {
        // The first one stays.
        let _ = self.seek.0.set(seek);
    }

    /// Makes a layer of an image ready: its zTOC verified and stored for good, and a little of its blob read, if it was
    /// not among those `opened` ahead.
    ///
    /// # Errors
    /// Why it cannot be read lazily.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        origin: &ImageOrigin,
        layer: &Descriptor,
        ztoc: &Descriptor,
        opened: &OpenedBlobs,
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), OpenError> {
        let key = LayerKey { layer: layer.digest.clone(), ztoc: ztoc.digest.clone() };
        let taking = async { Ok(self.ztocs.take(origin, &self.shared, &key, ztoc).await?) };
        let opening = async { Ok::<_, OpenError>(opened.open(origin, Some(&self.client), layer).await?) };
        let (ztoc, reader) = tokio::try_join!(taking, opening)?;
        let repository = origin.registry.as_ref().map(|(_, repository)| repository.clone());
        let (layers, size) = (Arc::clone(self), layer.size);
        let opening = tokio::task::spawn_blocking(move || {
            layers.assemble(key, ztoc, repository.as_ref(), reader, size)
        });
        opening.await?
    }

    /// Opens a layer that was committed before, without the network.
    ///
    /// # Errors
    /// If its zTOC is lost.
    pub fn reopen(
        &self,
        key: &LayerKey,
        record: &impl RecordedLayer,
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), OpenError> {
        let opened = self.reopen_own(key, record.size(), record.image())?;
        // Each image may have been pulled from somewhere else.
        let image = record.image().parse().ok().map(|image: Reference| image.repository().clone());
        let others = record.others().iter().filter(|other| other.layer == key.layer);
        let others = others.filter_map(|other| other.repository.parse().ok());
        let others = others.map(|other: Reference| other.repository().clone());
        for repository in image.into_iter().chain(others.take(MAX_SOURCES)) {
            self.add_source(&opened.0, &repository);
        }
        Ok(opened)
    }

    /// Adds a repository to those that an open layer is read from.
    fn add_source(&self, open: &OpenLayer, repository: &Repository) {
        let (layer, size) = (&open.key.layer, open.layer.size());
        open.sources.add(&name_of(repository), || {
            Arc::new(layer_blob::registry_blob(&self.client, repository, layer.clone(), size))
        });
    }

    /// Adds the repository of an image to its layers that are open.
    pub(crate) fn add_repository(&self, layers: &[Descriptor], repository: &Repository) {
        for open in self.all() {
            if layers.iter().any(|layer| layer.digest == open.key.layer) {
                self.add_source(&open, repository);
            }
        }
    }

    /// Adds a layer with the same content, which another image has, to one that is open. `chain`: what it must be.
    pub(crate) fn add_twin(&self, open: &OpenLayer, other: &OtherSource, chain: Chain) {
        let Ok(repository) = other.repository.parse::<Reference>() else { return };
        let reader = self.client.blob_reader(repository.repository(), other.layer.clone(), other.size);
        let name = format!("{}@{}", other.repository, other.layer);
        open.layer.add_twin(Arc::new(OtherLayer { name, reader: Arc::new(reader), chain }));
    }

    fn reopen_own(
        &self,
        key: &LayerKey,
        size: u64,
        reference: &str,
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), OpenError> {
        let stored = || self.ztocs.load(key).ok_or_else(|| OpenError::Lost { key: key.clone() });
        if let Some(open) = lock(&self.open).get(key).cloned() {
            let known = lock(&open.ztoc).upgrade();
            let ztoc = match known {
                Some(ztoc) => ztoc,
                None => {
                    let parsed = Arc::new(Ztoc::parse(stored()?)?);
                    *lock(&open.ztoc) = Arc::downgrade(&parsed);
                    parsed
                }
            };
            return Ok((open, ztoc));
        }
        let reference: Reference = reference.parse()?;
        let repository = reference.repository();
        let reader = layer_blob::registry_blob(&self.client, repository, key.layer.clone(), size);
        let ztoc = ShelvedZtoc { bytes: stored()?, stored: true };
        self.assemble(key.clone(), ztoc, Some(repository), Arc::new(reader), size)
    }

    fn assemble(
        &self,
        key: LayerKey,
        ztoc: ShelvedZtoc,
        repository: Option<&Repository>,
        reader: Arc<dyn BlobReader>,
        size: u64,
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), OpenError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let parsed = ParsedZtoc::read(&self.shared, key, ztoc, size)?;
        let ztoc = Arc::clone(&parsed.ztoc);
        // What is in no registry is at hand.
        let (name, host) = repository
            .map_or_else(Default::default, |repository| (name_of(repository), repository.host().to_owned()));
        // Another image may have opened it meanwhile.
        if let Some(open) = lock(&self.open).get(&parsed.key).cloned() {
            open.sources.add(&name, || reader);
            *lock(&open.ztoc) = Arc::downgrade(&ztoc);
            return Ok((open, ztoc));
        }
        let LayerParts { table, cache, file } = parsed.assemble(&self.shared, &self.ztocs)?;
        let number = self.numbers.number_of(&parsed.key.to_string())?;
        let sources = Sources::new(&name, reader, self.client.read_retry_policy().clone())
            .seeking(self.seek.0.get().cloned());
        let was_empty = cache.present() == 0;
        let reader = Arc::new(sources.clone());
        let layer = LazyLayer::new(reader, table, cache, file, self.shared.at(&host));
        let opened = Arc::new(OpenLayer {
            key: parsed.key.clone(),
            number,
            layer,
            sources,
            ztoc: Mutex::new(Arc::downgrade(&ztoc)),
            background: Mutex::default(),
            was_empty,
        });
        let opened = Arc::clone(lock(&self.open).entry(parsed.key).or_insert(opened));
        self.opened.send_replace(());
        Ok((opened, ztoc))
    }

    /// What its layers share.
    #[must_use]
    pub fn source(&self) -> &FetchContext {
        &self.shared
    }

    /// Begins to fetch the rest of a layer in the background, if that is wanted and not under way.
    pub fn start_background(&self, layer: &OpenLayer, runtime: &tokio::runtime::Handle) {
        let mut background = lock(&layer.background);
        if self.background && background.is_none() {
            let task = runtime.spawn(Arc::clone(&layer.layer).fetch_in_background());
            *background = Some(task.abort_handle());
        }
    }

    /// Changes whenever a layer was opened.
    #[must_use]
    pub fn opened(&self) -> watch::Receiver<()> {
        self.opened.subscribe()
    }

    /// The layer, if it is open.
    #[must_use]
    pub fn get(&self, key: &LayerKey) -> Option<Arc<OpenLayer>> {
        lock(&self.open).get(key).cloned()
    }

    /// All open layers.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<OpenLayer>> {
        lock(&self.open).values().cloned().collect()
    }

    /// Says how many layers are being fetched in the background.
    pub(crate) fn collect_metrics(&self, scrape: &mut Scrape) {
        let running = |layer: &&Arc<OpenLayer>| layer.background() == Background::Running;
        scrape.background_queue(lock(&self.open).values().filter(running).count() as u64);
    }
}
