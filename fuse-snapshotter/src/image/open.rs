//! The layers that the daemon serves.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Instant;

use bytes::Bytes;
use registry::{BlobReader, Client, Descriptor, Reference, Repository};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use ztoc::Ztoc;

use super::blob_opener::Opened;
use super::origin::ImageOrigin;
use super::sources::{MAX_SOURCES, Seek, Sources, name_of};
use super::twin::{Chain, OtherLayer};
use super::ztocs::ZtocFiles;
use super::{LayerKey, lazy};
use crate::base::lock::lock;
use crate::base::metrics::{Operation, Scrape};
use crate::content::{FetchContext, LayerTable, LazyLayer};
use crate::daemon::status::Background;
use crate::snapshotter::store::SnapshotStore;
use crate::snapshotter::{OtherSource, PLACEHOLDER, Record};

/// The numbers of layers in the snapshot store: they are part of inode numbers, which mean the same after a restart.
const NUMBERS: &str = "layers";

/// All layers that are read lazily, each once.
#[derive(Debug)]
pub struct OpenLayers {
    ztocs: ZtocFiles,
    shared: FetchContext,
    store: Arc<SnapshotStore>,
    client: Client,
    background: bool,
    keep_cache: bool,
    open: Mutex<HashMap<LayerKey, Arc<OpenLayer>>>,
    /// Held for reading by whoever opens a layer, for writing by whoever removes some, so that no layer goes between being
    /// opened and being used.
    gate: RwLock<()>,
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

/// A layer that is read lazily.
#[derive(Debug)]
pub struct OpenLayer {
    key: LayerKey,
    number: u32,
    layer: Arc<LazyLayer>,
    sources: Sources,
    /// The parsed zTOC, as long as somebody else has it.
    ztoc: Mutex<Weak<Ztoc>>,
    background: Mutex<Option<AbortHandle>>,
    /// Whether nothing of it was in the cache when it was opened.
    was_empty: bool,
}

impl OpenLayer {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> &LayerKey {
        &self.key
    }

    /// Its number, which is part of the inode numbers of its files.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its contents.
    #[must_use]
    pub fn lazy(&self) -> &Arc<LazyLayer> {
        &self.layer
    }

    /// What its reads wait for now, or what the last read that failed has failed of.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.sources.waiting().or_else(|| self.layer.last_error())
    }

    /// Whether nobody has read from it yet, and nothing of it was in the cache when it was opened.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.was_empty && self.layer.stats().served_bytes == 0
    }

    /// The state of the fetch in the background.
    #[must_use]
    pub fn background(&self) -> Background {
        match &*lock(&self.background) {
            None => Background::Off,
            Some(task) if task.is_finished() => Background::Done,
            Some(_) => Background::Running,
        }
    }
}

impl Drop for OpenLayer {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.background).take() {
            task.abort();
        }
    }
}

/// What [`OpenLayers::collect`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The layers that were removed.
    pub removed: Vec<LayerKey>,
    /// Whether there are layers that no snapshot uses, but somebody holds: a pull, or a tree that is being mounted.
    pub held: bool,
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
    /// Layers whose zTOCs are kept in `directory`, and which are read through `client`.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn new(
        directory: &Path,
        shared: FetchContext,
        store: Arc<SnapshotStore>,
        client: Client,
        options: OpenOptions,
    ) -> std::io::Result<Self> {
        Ok(Self {
            ztocs: ZtocFiles::open(directory)?,
            shared,
            store,
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

    /// Makes a layer of an image ready: its zTOC verified and stored for good, and a little of its blob read, if it was not
    /// among those `opened` ahead. An error says why it cannot be read lazily.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        origin: &ImageOrigin,
        layer: &Descriptor,
        ztoc: &Descriptor,
        opened: &Opened,
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), String> {
        let key = LayerKey { layer: layer.digest.clone(), ztoc: ztoc.digest.clone() };
        let bytes = async {
            let (layers, digest) = (Arc::clone(self), ztoc.digest.clone());
            let stored = tokio::task::spawn_blocking(move || layers.ztocs.load(&digest));
            match stored.await.map_err(|error| error.to_string())? {
                Some(bytes) => Ok((bytes, true)),
                None => {
                    let metrics = self.shared.metrics().layer(&layer.digest);
                    let started = Instant::now();
                    let fetched = origin.fetch_ztoc(ztoc).await?;
                    metrics.observe(Operation::ZtocFetch, started.elapsed());
                    Ok((fetched, false))
                }
            }
        };
        let ((bytes, stored), reader) =
            tokio::try_join!(bytes, opened.open(origin, Some(&self.client), layer))?;
        let repository = origin.registry.as_ref().map(|(_, repository)| repository.clone());
        let (layers, size) = (Arc::clone(self), layer.size);
        let opening = tokio::task::spawn_blocking(move || {
            layers
                .assemble(key, bytes, stored, repository.as_ref(), reader, size)
                .map_err(|error| error.to_string())
        });
        opening.await.map_err(|error| error.to_string())?
    }

    /// Opens a layer that was committed before, without the network.
    ///
    /// # Errors
    /// If its zTOC is lost.
    pub fn reopen(
        &self,
        key: &LayerKey,
        record: &Record,
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), ReopenError> {
        let opened = self.reopen_own(key, record.size, &record.image)?;
        // Each image may have been pulled from somewhere else.
        let image = record.image.parse().ok().map(|image: Reference| image.repository().clone());
        let others = record.others.iter().filter(|other| other.layer == key.layer);
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
            Arc::new(lazy::registry_blob(&self.client, repository, layer.clone(), size))
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
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), ReopenError> {
        let lost = || ReopenError::Lost { key: key.clone() };
        if let Some(open) = lock(&self.open).get(key).cloned() {
            let known = lock(&open.ztoc).upgrade();
            let ztoc = match known {
                Some(ztoc) => ztoc,
                None => {
                    let parsed = Ztoc::parse(self.ztocs.load(&key.ztoc).ok_or_else(lost)?)?;
                    let parsed = Arc::new(parsed);
                    *lock(&open.ztoc) = Arc::downgrade(&parsed);
                    parsed
                }
            };
            return Ok((open, ztoc));
        }
        let reference: Reference = reference.parse()?;
        let repository = reference.repository();
        let reader = lazy::registry_blob(&self.client, repository, key.layer.clone(), size);
        let bytes = self.ztocs.load(&key.ztoc).ok_or_else(lost)?;
        self.assemble(key.clone(), bytes, true, Some(repository), Arc::new(reader), size)
    }

    fn assemble(
        &self,
        key: LayerKey,
        bytes: Bytes,
        stored: bool,
        repository: Option<&Repository>,
        reader: Arc<dyn BlobReader>,
        size: u64,
    ) -> Result<(Arc<OpenLayer>, Arc<Ztoc>), ReopenError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let metrics = self.shared.metrics().layer(&key.layer);
        let started = Instant::now();
        let ztoc = Arc::new(Ztoc::parse(bytes)?);
        metrics.observe(Operation::ZtocUnmarshal, started.elapsed());
        if ztoc.compressed_size() != size {
            return Err(ReopenError::Size { expected: ztoc.compressed_size(), size });
        }
        // What is in no registry is at hand.
        let (name, host) = repository
            .map_or_else(Default::default, |repository| (name_of(repository), repository.host().to_owned()));
        // Another image may have opened it meanwhile.
        if let Some(open) = lock(&self.open).get(&key).cloned() {
            open.sources.add(&name, || reader);
            *lock(&open.ztoc) = Arc::downgrade(&ztoc);
            return Ok((open, ztoc));
        }
        let started = Instant::now();
        let table = LayerTable::new(&ztoc)?;
        metrics.observe(Operation::InitMetadataStore, started.elapsed());
        let cache = self.shared.cache().layer(key.layer.hex(), key.ztoc.hex(), table.block_count())?;
        // Even if it was there a moment ago: the layer may have been removed since.
        if !stored || self.ztocs.file(&key.ztoc).is_err() {
            self.ztocs.keep(&key.ztoc, ztoc.bytes())?;
        }
        let number = self.store.number(NUMBERS, &key.to_string())?;
        let sources = Sources::new(&name, reader, self.client.read_retry_policy().clone())
            .seeking(self.seek.0.get().cloned());
        let file = self.ztocs.file(&key.ztoc)?;
        let reader: Arc<dyn BlobReader> = Arc::new(sources.clone());
        let was_empty = cache.present() == 0;
        let layer = LazyLayer::new(reader, table, cache, file, self.shared.at(&host));
        let opened = Arc::new(OpenLayer {
            key: key.clone(),
            number,
            layer,
            sources,
            ztoc: Mutex::new(Arc::downgrade(&ztoc)),
            background: Mutex::default(),
            was_empty,
        });
        let opened = Arc::clone(lock(&self.open).entry(key).or_insert(opened));
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

    /// Removes layers that no snapshot uses: what was fetched of them, and their zTOCs. `used` is asked for the layers in
    /// use once no layer can be opened any more.
    ///
    /// # Errors
    /// Those of `used`, and of the disk.
    pub fn collect<E: From<std::io::Error>>(
        &self,
        used: impl FnOnce() -> Result<HashSet<LayerKey>, E>,
    ) -> Result<Collected, E> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        // In this order: whoever prepares a layer lets go of it only after the snapshot is in the store.
        let idle = |layer: &Arc<OpenLayer>| Arc::strong_count(layer) == 1;
        let busy: HashSet<LayerKey> =
            lock(&self.open).iter().filter(|(_, layer)| !idle(layer)).map(|(key, _)| key.clone()).collect();
        let used = used()?;
        let wanted = |key: &LayerKey| used.contains(key) || busy.contains(key);
        let mut removed: Vec<_> =
            lock(&self.open).extract_if(|key, _| !wanted(key)).map(|(key, _)| key).collect();
        // Layers of an earlier process that nothing has opened since.
        for (name, _) in self.store.numbers(NUMBERS).map_err(std::io::Error::other)? {
            let key = name.split_once('-').and_then(|(layer, ztoc)| {
                let digest = |hex: &str| format!("sha256:{hex}").parse().ok();
                Some(LayerKey { layer: digest(layer)?, ztoc: digest(ztoc)? })
            });
            match key {
                Some(key) if wanted(&key) => {}
                Some(key) => {
                    self.store.forget_number(NUMBERS, &name).map_err(std::io::Error::other)?;
                    if !removed.contains(&key) {
                        removed.push(key);
                    }
                }
                // Without it, numbers would begin anew while the kernel still remembers what the old ones stood for.
                None if name == PLACEHOLDER => {}
                None => self.store.forget_number(NUMBERS, &name).map_err(std::io::Error::other)?,
            }
        }
        for key in &removed {
            tracing::info!(layer = %key.layer, "no snapshot uses the layer any more");
            if !self.keep_cache {
                self.shared.cache().discard(key.layer.hex(), key.ztoc.hex());
            }
        }
        let ztocs: HashSet<_> = used.iter().chain(&busy).map(|key| key.ztoc.hex().to_owned()).collect();
        self.ztocs.retain(|hex| ztocs.contains(hex))?;
        self.forget_metrics(&removed);
        let held = busy.iter().any(|key| !used.contains(key));
        Ok(Collected { removed, held })
    }

    /// Shows removed layers in the metrics no longer.
    fn forget_metrics(&self, removed: &[LayerKey]) {
        let open: HashSet<_> = lock(&self.open).keys().map(|key| key.layer.clone()).collect();
        for key in removed.iter().filter(|key| !open.contains(&key.layer)) {
            self.shared.metrics().remove_layer(&key.layer);
        }
    }

    /// Says how many layers are being fetched in the background.
    pub(crate) fn collect_metrics(&self, scrape: &mut Scrape) {
        let running = |layer: &&Arc<OpenLayer>| layer.background() == Background::Running;
        scrape.background_queue(lock(&self.open).values().filter(running).count() as u64);
    }
}

/// Why a layer cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ReopenError {
    /// Its zTOC is not on disk any more, or damaged.
    #[error("the stored zTOC {} of layer {} is lost; remove the image and pull it again", key.ztoc, key.layer)]
    Lost {
        /// The layer.
        key: LayerKey,
    },
    /// The zTOC is for a layer of another size.
    #[error("the zTOC is for a layer of {expected} bytes, not {size}")]
    Size {
        /// Size in bytes that the zTOC gives.
        expected: u64,
        /// Size in bytes that the image gives.
        size: u64,
    },
    /// The zTOC makes no sense.
    #[error(transparent)]
    Ztoc(#[from] ztoc::Error),
    /// The zTOC claims what no layer can be like.
    #[error(transparent)]
    Table(#[from] crate::content::TableError),
    /// The recorded reference, or the registry's configuration.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] crate::content::cache::CacheError),
    /// The snapshot store.
    #[error(transparent)]
    Store(#[from] crate::snapshotter::store::StoreError),
    /// The disk.
    #[error("cannot keep the zTOC: {0}")]
    Io(#[from] std::io::Error),
}
