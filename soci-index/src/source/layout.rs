//! OCI image layouts, as a directory or in a tar file.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Descriptor, Digest};

use super::archive::{self, Extent};
use super::error::SourceError;
use super::file::FileSlice;
use super::image_source::{Check, ImageSource};
use super::spec::Selector;
use crate::oci::{ImageIndex, MAX_MANIFEST_SIZE};

/// Annotation of an entry of `index.json`: its name by the OCI specification.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of an entry of `index.json`: its name by containerd and Docker.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An image in an OCI layout.
#[derive(Debug)]
pub struct LayoutSource {
    path: PathBuf,
    selector: Selector,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Directory,
    Archive { file: Arc<File>, index: Extent, blobs: HashMap<Digest, Extent> },
}

impl LayoutSource {
    /// Opens the layout in the directory `path`.
    ///
    /// # Errors
    /// When there is no layout.
    pub fn directory(path: impl Into<PathBuf>, selector: Selector) -> Result<Self, SourceError> {
        let path = path.into();
        if path.is_file() {
            return Err(SourceError::Layout {
                reason: format!("this is a file; write oci-archive:{} for an archive", path.display()),
                path,
            });
        }
        let marker = path.join("oci-layout");
        std::fs::metadata(&marker).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound if path.is_dir() => SourceError::Layout {
                path: path.clone(),
                reason: "not an OCI layout: it has no oci-layout file".into(),
            },
            _ => SourceError::Io { path: path.clone(), source },
        })?;
        Ok(Self { path, selector, files: Files::Directory })
    }

    /// Opens the archive at `path` and reads its tar headers.
    ///
    /// # Errors
    /// When it is not an uncompressed tar file with a layout in it.
    pub fn archive(path: impl Into<PathBuf>, selector: Selector) -> Result<Self, SourceError> {
        let path = path.into();
        let file = open_regular(&path)?;
        let contents = archive::scan(&path, &file)?;
        let files = Files::Archive { file: Arc::new(file), index: contents.index, blobs: contents.blobs };
        Ok(Self { path, selector, files })
    }

    /// Whether the layout has a blob.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        match &self.files {
            Files::Archive { blobs, .. } => blobs.contains_key(digest),
            Files::Directory => self.path.join("blobs").join(digest.algorithm()).join(digest.hex()).is_file(),
        }
    }

    /// The part of a file that holds a blob, whose size has been checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<FileSlice, SourceError> {
        let missing = || SourceError::Missing { digest: descriptor.digest.clone(), name: self.name() };
        let (file, path, extent) = match &self.files {
            Files::Archive { file, blobs, .. } => {
                (Arc::clone(file), self.path.clone(), *blobs.get(&descriptor.digest).ok_or_else(missing)?)
            }
            Files::Directory => {
                // A digest is an algorithm's name and hex digits, so it cannot leave the directory.
                let path =
                    self.path.join("blobs").join(descriptor.digest.algorithm()).join(descriptor.digest.hex());
                let file = match open_regular(&path) {
                    Err(SourceError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                        return Err(missing());
                    }
                    other => other?,
                };
                let metadata = file.metadata();
                let len = metadata.map_err(|source| SourceError::Io { path: path.clone(), source })?.len();
                (Arc::new(file), path, Extent { offset: 0, len })
            }
        };
        if extent.len != descriptor.size {
            return Err(SourceError::Corrupt {
                name: self.name(),
                expected: descriptor.digest.clone(),
                problem: format!("should have {} bytes and has {}", descriptor.size, extent.len),
            });
        }
        Ok(FileSlice::new(file, path, extent, descriptor.digest.clone(), self.name()))
    }

    /// `index.json`.
    pub(super) fn index(&self) -> Result<ImageIndex, SourceError> {
        let path = match self.files {
            Files::Directory => self.path.join("index.json"),
            Files::Archive { .. } => self.path.clone(),
        };
        let bad = |reason: String| SourceError::Layout { path: path.clone(), reason };
        let io = |source| SourceError::Io { path: path.clone(), source };
        let opened;
        let (file, extent) = match &self.files {
            Files::Directory => {
                opened = open_regular(&path)?;
                (&opened, Extent { offset: 0, len: opened.metadata().map_err(io)?.len() })
            }
            Files::Archive { file, index, .. } => (&**file, *index),
        };
        if extent.len > MAX_MANIFEST_SIZE {
            return Err(bad(format!(
                "index.json has {} bytes, more than the {MAX_MANIFEST_SIZE} allowed",
                extent.len
            )));
        }
        let mut json = vec![0; extent.len as usize];
        file.read_exact_at(&mut json, extent.offset).map_err(io)?;
        ImageIndex::parse(&json).map_err(|error| bad(format!("index.json: {error}")))
    }
}

fn open_regular(path: &Path) -> Result<File, SourceError> {
    let io = |source| SourceError::Io { path: path.to_owned(), source };
    // Opening a pipe would block for ever.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(SourceError::Layout { path: path.to_owned(), reason: "not a regular file".into() });
    }
    File::open(path).map_err(io)
}

/// The entry of `index.json` that `selector` means.
fn select(manifests: Vec<Descriptor>, selector: &Selector) -> Result<Descriptor, String> {
    let names = |entry: &Descriptor| -> Vec<String> {
        [REF_NAME, CONTAINERD_NAME].iter().filter_map(|key| entry.annotations.get(*key)).cloned().collect()
    };
    let all: BTreeSet<String> =
        manifests.iter().flat_map(names).map(|name| crate::text::excerpt(&name)).collect();
    let list = || {
        if all.is_empty() {
            "its images have no tags; choose one by its position, :@0 being the first".to_owned()
        } else {
            format!("it has: {}", all.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
        }
    };
    let found: Vec<Descriptor> = match selector {
        Selector::Only => manifests,
        Selector::Name(name) => manifests.into_iter().filter(|entry| names(entry).contains(name)).collect(),
        Selector::Position(position) => manifests.into_iter().skip(*position).take(1).collect(),
    };
    match (&found[..], selector) {
        // One image under several tags is still one image.
        ([first, rest @ ..], _) if rest.iter().all(|entry| entry.digest == first.digest) => Ok(first.clone()),
        ([], Selector::Only) => Err("the layout holds no image".into()),
        ([], Selector::Name(name)) => {
            Err(format!("no image is tagged {}; {}", crate::text::excerpt(name), list()))
        }
        ([], Selector::Position(position)) => Err(format!("index.json has no entry {position}; {}", list())),
        (several, _) => Err(format!("{} images match, add :TAG to choose one; {}", several.len(), list())),
    }
}

#[async_trait]
impl ImageSource for LayoutSource {
    fn name(&self) -> String {
        let transport = match self.files {
            Files::Directory => "oci",
            Files::Archive { .. } => "oci-archive",
        };
        format!("{transport}:{}{}", self.path.display(), self.selector)
    }

    async fn root(&self) -> Result<Descriptor, SourceError> {
        select(self.index()?.manifests, &self.selector)
            .map_err(|reason| SourceError::Layout { path: self.path.clone(), reason })
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        SourceError::check_manifest_size(descriptor)?;
        self.blob(descriptor)?.read_all().await
    }

    async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError> {
        SourceError::check_size(descriptor, "blob", limit)?;
        self.blob(descriptor)?.read_all().await
    }

    async fn open_blob(&self, descriptor: &Descriptor, check: Check) -> Result<ByteStream, SourceError> {
        Ok(self.blob(descriptor)?.into_stream(check))
    }

    async fn blob_reader(&self, descriptor: &Descriptor) -> Result<Arc<dyn BlobReader>, SourceError> {
        Ok(Arc::new(self.blob(descriptor)?.into_reader()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &[u8], key: &str, name: &str) -> Descriptor {
        let mut entry = Descriptor::of("t", content);
        entry.annotations.insert(key.into(), name.into());
        entry
    }

    #[test]
    fn an_image_is_selected_by_either_annotation() {
        let entries = vec![
            entry(b"1", REF_NAME, "v1"),
            entry(b"2", CONTAINERD_NAME, "docker.io/library/x:v2"),
            entry(b"1", REF_NAME, "latest"),
        ];
        let pick = |selector| select(entries.clone(), &selector).map(|found| found.digest);
        assert_eq!(pick(Selector::Name("latest".into())), Ok(Digest::of(b"1")));
        assert_eq!(pick(Selector::Name("docker.io/library/x:v2".into())), Ok(Digest::of(b"2")));
        assert_eq!(pick(Selector::Position(1)), Ok(Digest::of(b"2")));
        assert_eq!(
            pick(Selector::Only).unwrap_err(),
            "3 images match, add :TAG to choose one; it has: docker.io/library/x:v2, latest, v1"
        );
        assert!(
            pick(Selector::Name("v3".into())).unwrap_err().contains("no image is tagged v3; it has: docker")
        );
        assert!(pick(Selector::Position(9)).unwrap_err().contains("no entry 9"));
        // Several tags of one image are no ambiguity.
        let same = vec![entries[0].clone(), entries[2].clone()];
        assert_eq!(select(same, &Selector::Only).unwrap().digest, Digest::of(b"1"));
        assert_eq!(select(Vec::new(), &Selector::Only).unwrap_err(), "the layout holds no image");
    }
}
