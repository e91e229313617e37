//! What the registry holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

/// The bytes of a blob, wherever they are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// In memory.
    Memory(Bytes),
    /// In a file that does not change.
    File(Arc<File>, u64),
}

impl Source {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self::File(Arc::new(file), len))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(data) => data.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// Reads `len` bytes at `start`, which must be there.
    pub(super) fn read_now(&self, start: u64, len: u64) -> io::Result<Bytes> {
        match self {
            Self::Memory(data) => Ok(data.slice(start as usize..(start + len) as usize)),
            Self::File(file, _) => {
                let mut buffer = vec![0; len as usize];
                file.read_exact_at(&mut buffer, start)?;
                Ok(buffer.into())
            }
        }
    }

    /// As [`read_now`](Self::read_now), keeping disk reads off the runtime's threads.
    pub(super) async fn read(&self, start: u64, len: u64) -> io::Result<Bytes> {
        match self {
            Self::Memory(_) => self.read_now(start, len),
            Self::File(..) => {
                let source = self.clone();
                tokio::task::spawn_blocking(move || source.read_now(start, len)).await?
            }
        }
    }
}

/// A blob and the repositories that have it.
#[derive(Debug)]
struct Blob {
    source: Source,
    /// Put there by the test rather than by a client: visible in every repository.
    everywhere: bool,
    repos: HashSet<String>,
}

/// A manifest or an index.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) digest: String,
    pub(super) media_type: String,
    pub(super) body: Bytes,
}

impl Manifest {
    /// The digest of its subject.
    pub(super) fn subject(&self) -> Option<String> {
        let json: Value = serde_json::from_slice(&self.body).ok()?;
        json["subject"]["digest"].as_str().map(String::from)
    }
}

#[derive(Debug, Default)]
struct Repo {
    tags: BTreeMap<String, String>,
    /// In the order of arrival, which is the order of the referrers list.
    manifests: Vec<Manifest>,
}

/// An upload that has begun.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) repo: String,
    pub(super) data: Vec<u8>,
}

/// Blobs, manifests, tags and uploads.
#[derive(Debug, Default)]
pub(super) struct Store {
    blobs: HashMap<String, Blob>,
    repos: BTreeMap<String, Repo>,
    pub(super) uploads: HashMap<String, Upload>,
    uploads_begun: u64,
}

impl Store {
    /// Adds a blob to one repository, or to all.
    pub(super) fn put_blob(&mut self, digest: &str, source: Source, repo: Option<&str>) {
        let blob = self.blobs.entry(digest.into()).or_insert_with(|| Blob {
            source: source.clone(),
            everywhere: false,
            repos: HashSet::new(),
        });
        blob.source = source;
        match repo {
            Some(repo) => {
                blob.repos.insert(repo.into());
                self.repos.entry(repo.into()).or_default();
            }
            None => blob.everywhere = true,
        }
    }

    /// A blob as seen from a repository.
    pub(super) fn blob(&self, repo: &str, digest: &str) -> Option<Source> {
        let blob = self.blobs.get(digest)?;
        (blob.everywhere || blob.repos.contains(repo)).then(|| blob.source.clone())
    }

    /// A blob of any repository.
    pub(super) fn any_blob(&self, digest: &str) -> Option<Source> {
        self.blobs.get(digest).map(|b| b.source.clone())
    }

    pub(super) fn remove_blob(&mut self, digest: &str) -> bool {
        self.blobs.remove(digest).is_some()
    }

    /// Takes a blob out of one repository; one that is everywhere goes from everywhere.
    pub(super) fn remove_blob_from(&mut self, repo: &str, digest: &str) -> bool {
        let Some(blob) = self.blobs.get_mut(digest) else { return false };
        let was_there = blob.everywhere || blob.repos.contains(repo);
        blob.everywhere = false;
        blob.repos.remove(repo);
        was_there
    }

    /// Adds a manifest, under a tag if `reference` is one. Returns its digest.
    pub(super) fn put_manifest(
        &mut self,
        repo: &str,
        reference: Option<&str>,
        media_type: &str,
        body: Bytes,
    ) -> String {
        let digest = crate::digest::sha256(&body);
        let entry = self.repos.entry(repo.into()).or_default();
        entry.manifests.retain(|m| m.digest != digest);
        entry.manifests.push(Manifest { digest: digest.clone(), media_type: media_type.into(), body });
        if let Some(tag) = reference.filter(|r| !r.contains(':')) {
            entry.tags.insert(tag.into(), digest.clone());
        }
        digest
    }

    pub(super) fn tag(&mut self, repo: &str, tag: &str, digest: &str) {
        self.repos.entry(repo.into()).or_default().tags.insert(tag.into(), digest.into());
    }

    pub(super) fn manifest(&self, repo: &str, reference: &str) -> Option<&Manifest> {
        let repo = self.repos.get(repo)?;
        let digest = if reference.contains(':') { reference } else { repo.tags.get(reference)?.as_str() };
        repo.manifests.iter().find(|m| m.digest == digest)
    }

    /// Removes a manifest and its tags, or only the tag when given one.
    pub(super) fn delete_reference(&mut self, repo: &str, reference: &str) -> bool {
        if reference.contains(':') {
            return self.remove_manifest(repo, reference);
        }
        self.repos.get_mut(repo).is_some_and(|r| r.tags.remove(reference).is_some())
    }

    /// Removes a manifest, by tag or digest, and all its tags.
    pub(super) fn remove_manifest(&mut self, repo: &str, reference: &str) -> bool {
        let Some(digest) = self.manifest(repo, reference).map(|m| m.digest.clone()) else { return false };
        let Some(repo) = self.repos.get_mut(repo) else { return false };
        repo.tags.retain(|_, d| *d != digest);
        repo.manifests.retain(|m| m.digest != digest);
        true
    }

    /// The tags of a repository, sorted; `None` if there is no such repository.
    pub(super) fn tags(&self, repo: &str) -> Option<Vec<String>> {
        self.repos.get(repo).map(|r| r.tags.keys().cloned().collect())
    }

    /// The manifests of a repository whose subject is `digest`, oldest first.
    pub(super) fn referrers(&self, repo: &str, digest: &str) -> Vec<Manifest> {
        let manifests = self.repos.get(repo).map(|r| r.manifests.as_slice()).unwrap_or_default();
        manifests.iter().filter(|m| m.subject().as_deref() == Some(digest)).cloned().collect()
    }

    /// Begins an upload and returns its name.
    pub(super) fn begin_upload(&mut self, repo: &str) -> String {
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        self.uploads.insert(id.clone(), Upload { repo: repo.into(), data: Vec::new() });
        id
    }
}
