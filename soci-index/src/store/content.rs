//! Blobs on disk: an OCI image layout whose files appear complete or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use registry::{ByteStream, Descriptor, Digest};

use super::error::StoreError;
use crate::files::{self, OCI_LAYOUT};
use crate::manifest::IndexManifest;
use crate::oci::{ImageIndex, MAX_MANIFEST_SIZE};
use crate::source::{Check, Extent, FileSlice};

/// The blobs of a store.
#[derive(Debug)]
pub struct Content {
    root: PathBuf,
}

/// Makes a directory and its parents with mode 0700; those that are there keep theirs.
pub(super) fn create_directories(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io(path))
}

impl Content {
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let content = Self { root: root.to_owned() };
        create_directories(&root.join("blobs/sha256"))?;
        create_directories(&root.join("ingest"))?;
        let marker = root.join("oci-layout");
        if !marker.exists() {
            content.write(&marker, OCI_LAYOUT, 0o444)?;
        }
        Ok(content)
    }

    /// The directory of all blobs with the one algorithm that is in use.
    pub(super) fn directory(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// The file that holds, or would hold, a blob.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        // What is there stays if it is intact; what is damaged is replaced.
        if !self.verify(&digest) {
            self.write(&path, bytes, 0o444)?;
        }
        Ok(digest)
    }

    pub(super) fn get(&self, digest: &Digest, limit: u64) -> Result<Bytes, StoreError> {
        let (path, file, size) = self.open_blob(digest)?;
        if size > limit {
            return Err(StoreError::Damaged(
                digest.clone(),
                format!("{size} bytes, more than the {limit} allowed"),
            ));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut bytes).map_err(StoreError::io(&path))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::Damaged(digest.clone(), format!("its content has digest {actual}")));
        }
        Ok(bytes.into())
    }

    pub(super) fn stream(&self, descriptor: &Descriptor) -> Result<ByteStream, StoreError> {
        let (path, file, size) = self.open_blob(&descriptor.digest)?;
        if size != descriptor.size {
            let reason = format!("it has {size} bytes instead of {}", descriptor.size);
            return Err(StoreError::Damaged(descriptor.digest.clone(), reason));
        }
        let (name, extent) = ("the artifact store".to_owned(), Extent { offset: 0, len: size });
        let blob = FileSlice::new(Arc::new(file), path, extent, descriptor.digest.clone(), name);
        Ok(blob.into_stream(Check::BySource))
    }

    pub(super) fn verify(&self, digest: &Digest) -> bool {
        let actual =
            self.open_blob(digest).ok().and_then(|(_, mut file, _)| files::digest_of(&mut file).ok());
        actual.is_some_and(|actual| actual == *digest)
    }

    /// Deletes a blob and returns its size in bytes; `None` if it was not there.
    pub(super) fn delete(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(digest);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        fs::remove_file(&path).map_err(StoreError::io(&path))?;
        Ok(Some(size))
    }

    /// The blobs that an index manifest names; none if the manifest is not there or is something else.
    pub(super) fn references(&self, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        match self.get(digest, MAX_MANIFEST_SIZE) {
            Ok(json) => Ok(IndexManifest::parse(&json).map_or_else(
                |_| Vec::new(),
                |manifest| {
                    let config = manifest.config().digest;
                    manifest.blobs.into_iter().map(|blob| blob.digest).chain([config]).collect()
                },
            )),
            Err(StoreError::Missing(_) | StoreError::Damaged(..)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The manifests in `index.json`.
    pub(super) fn listed(&self) -> Result<Vec<Descriptor>, StoreError> {
        Ok(self.read_index()?.manifests)
    }

    /// Adds a manifest to `index.json`. The caller holds the layout lock.
    pub(super) fn list(&self, descriptor: &Descriptor) -> Result<(), StoreError> {
        let mut index = self.read_index()?;
        if index.manifests.iter().any(|entry| entry.digest == descriptor.digest) {
            return Ok(());
        }
        index.manifests.push(descriptor.clone());
        self.write(&self.root.join("index.json"), &index.encode(), 0o644)
    }

    /// Takes manifests out of `index.json`. The caller holds the layout lock.
    pub(super) fn unlist(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let mut index = self.read_index()?;
        let before = index.manifests.len();
        index.manifests.retain(|entry| !digests.contains(&entry.digest));
        if index.manifests.len() == before {
            return Ok(());
        }
        self.write(&self.root.join("index.json"), &index.encode(), 0o644)
    }

    /// Deletes what processes that died have left in `ingest/`.
    pub(super) fn clean_ingest(&self) {
        files::remove_abandoned(&self.root.join("ingest"), "");
    }

    fn read_index(&self) -> Result<ImageIndex, StoreError> {
        let path = self.root.join("index.json");
        match fs::read(&path) {
            Ok(json) => ImageIndex::parse(&json).map_err(|error| StoreError::Io {
                path,
                source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ImageIndex::default()),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    fn open_blob(&self, digest: &Digest) -> Result<(PathBuf, File, u64), StoreError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(digest.clone()));
            }
            other => other.map_err(StoreError::io(&path))?,
        };
        let size = file.metadata().map_err(StoreError::io(&path))?.len();
        Ok((path, file, size))
    }

    /// Writes a file so that it is there completely, after a crash too, or not at all.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
        let (temporary, mut file) = self.create_temporary(path, mode)?;
        let result = (|| {
            file.write_all(bytes)?;
            // Whatever the umask left of it.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(path.parent().unwrap_or(path))?.sync_all()
        })();
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(StoreError::io(path))
    }

    /// A new file in `ingest/`. Process ids are not unique where containers share a root, so a name that is taken is
    /// somebody else's.
    fn create_temporary(&self, path: &Path, mode: u32) -> Result<(PathBuf, File), StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let temporary = self.root.join("ingest").join(format!("{name}_{}_{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    return other.map(|file| (temporary.clone(), file)).map_err(StoreError::io(&temporary));
                }
            }
        }
    }
}
