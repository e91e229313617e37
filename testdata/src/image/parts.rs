//! Taking images out: into a registry, a layout directory, or an archive.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::compress::Compression;
use super::content::Content;
use super::entry::Entry;
use super::layer::{BlobData, LayerBuilder};
use crate::registry::TestRegistry;

/// A descriptor with what it describes.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) digest: String,
    pub(super) media_type: String,
    pub(super) data: BlobData,
    pub(super) size: u64,
    pub(super) is_manifest: bool,
}

/// All parts of an image, whatever is referred to before what refers to it; the root is last.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts(pub(super) Vec<Part>);

impl Parts {
    fn root(&self) -> &Part {
        self.0.last().expect("an image has a manifest")
    }

    pub(super) fn put_into(&self, registry: &TestRegistry, repo: &str, tag: &str) -> String {
        for part in &self.0 {
            match &part.data {
                BlobData::Memory(data) if part.is_manifest => {
                    let reference = if part.digest == self.root().digest { tag } else { &part.digest };
                    registry.put_manifest(repo, reference, &part.media_type, data.clone());
                }
                BlobData::Memory(data) => drop(registry.put_blob(data.clone())),
                BlobData::File(path) => registry.put_blob_file_as(path, &part.digest),
            }
        }
        self.root().digest.clone()
    }

    fn index_json(&self, tag: &str) -> String {
        let root = self.root();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": root.media_type,
                "digest": root.digest,
                "size": root.size,
                "annotations": { "org.opencontainers.image.ref.name": tag },
            }],
        })
        .to_string()
    }

    pub(super) fn write_layout(&self, dir: &Path, tag: &str) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("layout directory");
        for part in &self.0 {
            let path = blobs.join(&part.digest["sha256:".len()..]);
            match &part.data {
                BlobData::Memory(data) => fs::write(path, data).expect("blob"),
                BlobData::File(from) => drop(fs::copy(from, path).expect("blob")),
            }
        }
        fs::write(dir.join("oci-layout"), LAYOUT).expect("oci-layout");
        fs::write(dir.join("index.json"), self.index_json(tag)).expect("index.json");
    }

    pub(super) fn write_archive(&self, path: &Path, tag: &str) {
        let mut tar = LayerBuilder::to_file(path, Compression::None).without_record();
        tar.add(Entry::dir("blobs")).add(Entry::dir("blobs/sha256"));
        let mut written = BTreeSet::new();
        for part in &self.0 {
            if written.insert(&part.digest) {
                let content = match &part.data {
                    BlobData::Memory(data) => Content::Bytes(data.clone()),
                    BlobData::File(path) => Content::File { path: path.clone(), len: part.size },
                };
                tar.add(Entry::file(format!("blobs/{}", part.digest.replace(':', "/")), content));
            }
        }
        tar.add(Entry::file("index.json", self.index_json(tag)));
        tar.add(Entry::file("oci-layout", LAYOUT));
        tar.finish();
    }
}

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
