//! The store: artifacts in it, and their records.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use registry::{ByteStream, Descriptor, Digest};

use super::content::{self, Content};
use super::database::{ArtifactKind, Database, Record};
use super::error::StoreError;
use super::lock::Lease;
use super::remote;
use super::remote::Remote;
use crate::containerd::{Containerd, Endpoint};
use crate::manifest::IndexManifest;
use crate::oci::MAX_MANIFEST_SIZE;

/// Where the store is unless the user says otherwise: `/var/lib/soci-snapshotter-grpc` for root, as in the reference,
/// else `soci-snapshotter-grpc` in `$XDG_DATA_HOME` or `~/.local/share`.
pub fn default_root() -> PathBuf {
    const NAME: &str = "soci-snapshotter-grpc";
    if rustix::process::geteuid().is_root() {
        return Path::new("/var/lib").join(NAME);
    }
    let directory =
        |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    match (directory("XDG_DATA_HOME"), directory("HOME")) {
        (Some(data), _) => data.join(NAME),
        (None, Some(home)) => home.join(".local/share").join(NAME),
        (None, None) => std::env::temp_dir().join(format!("{NAME}-{}", rustix::process::geteuid().as_raw())),
    }
}

/// What removing an index freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Records of indexes removed.
    pub indexes: usize,
    /// Blobs deleted.
    pub blobs: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Whether blobs were left because the reference's state in the same root may name them.
    pub shared: bool,
}

/// The artifact store under one root directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
    pub(super) remote: Option<Arc<Remote>>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: PathBuf,
    pub(super) content: Content,
    pub(super) database: Database,
}

impl Store {
    /// The store under `root`, whose directories are made with mode 0700 where they are missing.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        content::create_directories(&root)?;
        let content = Content::open(&root.join("content"))?;
        let database = Database::new(root.join("artifacts.redb"));
        Ok(Self { inner: Arc::new(Inner { root, content, database }), remote: None })
    }

    /// The same store, which also finds blobs in containerd. It is asked only for what is not here, and counts as empty if
    /// nobody answers.
    #[must_use]
    pub fn reading_containerd(self, endpoint: Endpoint) -> Self {
        Self { remote: Some(Arc::new(Remote::reading(endpoint))), ..self }
    }

    /// The same store, whose new blobs go to containerd, with the labels that keep an index as long as its image. The
    /// connection should be that of a [lease](crate::containerd::Lease).
    #[must_use]
    pub fn writing_containerd(self, containerd: Containerd) -> Self {
        Self { remote: Some(Arc::new(Remote::writing(containerd))), ..self }
    }

    fn writer(&self) -> Option<&Containerd> {
        self.remote.as_deref().and_then(Remote::writer)
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The blobs.
    pub fn content(&self) -> &Content {
        &self.inner.content
    }

    /// Whether the reference keeps its state in the same root.
    pub fn has_reference_state(&self) -> bool {
        self.inner.root.join("artifacts.db").exists()
    }

    /// Whether this store has never had a record.
    pub fn is_new(&self) -> bool {
        !self.inner.database.path().exists()
    }

    /// Keeps removals out until the lease is dropped: take one before writing blobs that no record names yet.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when a removal is under way and does not end.
    pub async fn lease(&self) -> Result<Lease, StoreError> {
        let path = self.inner.root.join("artifacts.lock");
        blocking(move || Lease::shared(&path)).await
    }

    /// Stores bytes under their digest.
    ///
    /// # Errors
    /// When writing fails.
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        if let Some(containerd) = self.writer() {
            return remote::put(containerd, bytes).await;
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.content.put(&bytes)).await
    }

    /// Stores an index manifest with its config blob, and lists it in `index.json`; or in containerd, where the image's
    /// manifest has to be then.
    ///
    /// # Errors
    /// When writing fails.
    pub async fn put_index(&self, manifest: &IndexManifest) -> Result<Descriptor, StoreError> {
        let descriptor = |manifest: &IndexManifest, bytes: &[u8]| {
            let mut descriptor = Descriptor::of(crate::oci::IMAGE_MANIFEST, bytes);
            descriptor.artifact_type = Some(manifest.version.media_type().to_owned());
            descriptor
        };
        if let Some(containerd) = self.writer() {
            let bytes = remote::put_index(containerd, manifest).await?;
            return Ok(descriptor(manifest, &bytes));
        }
        let (inner, manifest) = (Arc::clone(&self.inner), manifest.clone());
        blocking(move || {
            inner.content.put(crate::manifest::CONFIG_BLOB)?;
            let bytes = manifest.encode();
            inner.content.put(&bytes)?;
            let descriptor = descriptor(&manifest, &bytes);
            let _guard = Lease::layout(&inner.root)?;
            inner.content.list(&descriptor)?;
            Ok(descriptor)
        })
        .await
    }

    /// Reads a whole blob of at most `limit` bytes and checks its digest.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Damaged`] or a failure to read.
    pub async fn get(&self, digest: &Digest, limit: u64) -> Result<Bytes, StoreError> {
        let (inner, wanted) = (Arc::clone(&self.inner), digest.clone());
        let here = blocking(move || inner.content.get(&wanted, limit)).await;
        match (here, &self.remote) {
            (Err(StoreError::Missing(missing)), Some(remote)) => {
                remote.get(digest, limit).await?.ok_or(StoreError::Missing(missing))
            }
            (here, _) => here,
        }
    }

    /// Reads and parses an index manifest.
    ///
    /// # Errors
    /// Those of [`Store::get`], and a blob that is no index manifest.
    pub async fn index(&self, digest: &Digest) -> Result<IndexManifest, StoreError> {
        let json = self.get(digest, MAX_MANIFEST_SIZE).await?;
        IndexManifest::parse(&json).map_err(|error| StoreError::Document(digest.clone(), error))
    }

    /// A blob as a stream that ends with an error unless its digest is right.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Damaged`] when the size is wrong.
    pub async fn stream(&self, descriptor: &Descriptor) -> Result<ByteStream, StoreError> {
        match (self.inner.content.stream(descriptor), &self.remote) {
            (Err(StoreError::Missing(missing)), Some(remote)) => {
                remote.stream(descriptor).await?.ok_or(StoreError::Missing(missing))
            }
            (here, _) => here,
        }
    }

    /// Whether a blob is in the store's own files and has its digest.
    pub async fn verify(&self, digest: &Digest) -> bool {
        let (inner, digest) = (Arc::clone(&self.inner), digest.clone());
        blocking(move || Ok(inner.content.verify(&digest))).await.unwrap_or(false)
    }

    /// Makes sure that a blob of an earlier build is intact and where new blobs go, and copies it there if it is only in
    /// the other place. `false` if it has to be built again.
    ///
    /// # Errors
    /// When containerd, which new blobs go to, fails.
    pub async fn adopt(&self, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        let blob = Descriptor::new("", digest.clone(), size);
        if let Some(containerd) = self.writer() {
            if remote::adopt(containerd, &blob).await? {
                return Ok(true);
            }
        } else if self.verify(digest).await {
            return Ok(true);
        }
        let Ok(bytes) = self.get(digest, size).await else { return Ok(false) };
        self.put(bytes).await?;
        Ok(true)
    }

    /// Adds records, replacing those with the same key.
    ///
    /// # Errors
    /// When the database cannot be opened or written.
    pub async fn record(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.database.put(&records)).await
    }

    /// All records.
    ///
    /// # Errors
    /// When the database cannot be opened or read.
    pub async fn records(&self) -> Result<Vec<Record>, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.database.all()).await
    }

    /// Removes every index record for which `chosen` holds, and deletes the blobs that only they used.
    ///
    /// Where the reference has state in the same root, blobs stay: its database may name them.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a build is running, or a failure to read or write.
    pub async fn remove_indexes(
        &self,
        chosen: impl Fn(&Record) -> bool + Send + 'static,
    ) -> Result<Removed, StoreError> {
        let store = self.clone();
        let (removed, gone) = blocking(move || store.remove_blocking(&chosen)).await?;
        if let Some(remote) = &self.remote {
            for (index, image) in gone {
                remote.forget(&index, &image).await?;
            }
        }
        Ok(removed)
    }

    /// Also gives the indexes that no record names any more, each with its image's manifest.
    fn remove_blocking(
        &self,
        chosen: &dyn Fn(&Record) -> bool,
    ) -> Result<(Removed, Vec<(Digest, Digest)>), StoreError> {
        let Inner { root, content, database } = &*self.inner;
        let _exclusive = Lease::exclusive(&root.join("artifacts.lock"))?;
        let (removed, kept): (Vec<_>, Vec<_>) = database
            .all()?
            .into_iter()
            .filter(|record| record.kind == ArtifactKind::Index)
            .partition(|record| chosen(record));
        let mut result =
            Removed { indexes: removed.len(), shared: self.has_reference_state(), ..Removed::default() };
        if removed.is_empty() {
            return Ok((result, Vec::new()));
        }
        let kept_digests: Vec<Digest> = kept.into_iter().map(|record| record.digest).collect();
        let mut orphans: Vec<(Digest, Digest)> = removed
            .iter()
            .filter(|record| !kept_digests.contains(&record.digest))
            .map(|record| (record.digest.clone(), record.oci_digest.clone()))
            .collect();
        orphans.sort();
        orphans.dedup();
        let gone: Vec<Digest> = orphans.iter().map(|(digest, _)| digest.clone()).collect();
        if result.shared {
            database.remove(&removed)?;
            // Those in containerd may be the reference's as well.
            return Ok((result, Vec::new()));
        }

        // Everything else that `index.json` lists counts as in use, whoever wrote it.
        let _guard = Lease::layout(root)?;
        let mut used: std::collections::HashSet<Digest> = kept_digests.iter().cloned().collect();
        let listed =
            content.listed()?.into_iter().map(|entry| entry.digest).filter(|digest| !gone.contains(digest));
        for digest in kept_digests.iter().cloned().chain(listed) {
            used.extend(content.references(&digest)?);
            used.insert(digest);
        }
        let mut doomed = Vec::new();
        for digest in &gone {
            doomed.extend(content.references(digest)?);
            doomed.push(digest.clone());
        }
        doomed.retain(|digest| !used.contains(digest));
        doomed.sort();
        doomed.dedup();

        // Records first: a blob without a record is only space, a record without its blob would be a lie.
        let layers = database.all()?.into_iter().filter(|record| doomed.contains(&record.digest));
        let records: Vec<Record> = removed.into_iter().chain(layers).collect();
        database.remove(&records)?;
        content.unlist(&gone)?;
        for digest in doomed {
            if let Some(bytes) = content.delete(&digest)? {
                result.blobs += 1;
                result.bytes += bytes;
            }
        }
        content.clean_ingest();
        Ok((result, orphans))
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Task(error.to_string()))?
}
