//! The manifests and indexes that an image consists of, with their bytes.

use bytes::Bytes;
use registry::Descriptor;
use serde::Deserialize;

use crate::manifest::IndexManifest;
use crate::oci::{self, DocumentError, ImageIndex, ImageManifest, MAX_MANIFEST_SIZE, null_as_default};

/// A manifest or index.
#[derive(Debug, Clone)]
pub struct Document {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it says.
    pub kind: DocumentKind,
}

/// What a document is.
#[derive(Debug, Clone)]
pub enum DocumentKind {
    /// An image index or Docker's manifest list.
    Index(Box<ImageIndex>),
    /// An image manifest, or an artifact in the form of one, such as an attestation.
    Image(Box<ImageManifest>),
    /// A SOCI index, read as what it is and as the manifest it looks like.
    Soci(Box<IndexManifest>, Box<ImageManifest>),
    /// A document of another kind, with the blobs that it names.
    Other(Vec<Descriptor>),
}

/// What every manifest that ever was has of these: a configuration, layers, or an OCI artifact's blobs.
#[derive(Default, Deserialize)]
struct Children {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    blobs: Vec<Descriptor>,
}

impl DocumentKind {
    /// A SOCI index; `None` if the bytes are something else.
    pub(crate) fn soci(bytes: &[u8]) -> Option<Self> {
        let (index, manifest) = (IndexManifest::parse(bytes).ok()?, ImageManifest::parse(bytes).ok()?);
        Some(Self::Soci(index.into(), manifest.into()))
    }
}

impl Document {
    /// A document that was made here.
    pub(crate) fn new(media_type: &str, bytes: Bytes, kind: DocumentKind) -> Self {
        Self { descriptor: Descriptor::of(media_type, &bytes), bytes, kind }
    }

    /// Parses what `descriptor` says that it is.
    pub(crate) fn parse(descriptor: &Descriptor, bytes: Bytes) -> Result<Self, DocumentError> {
        let kind = if oci::is_index(descriptor) {
            DocumentKind::Index(ImageIndex::parse(&bytes)?.into())
        } else if oci::is_manifest(descriptor) {
            match DocumentKind::soci(&bytes) {
                Some(soci) => soci,
                None => DocumentKind::Image(ImageManifest::parse(&bytes)?.into()),
            }
        } else {
            // Of a kind that nobody knows here: it may be anything, and name anything.
            let children: Children = oci::parse("manifest", &bytes, MAX_MANIFEST_SIZE).unwrap_or_default();
            let Children { config, layers, blobs } = children;
            DocumentKind::Other(config.into_iter().chain(layers).chain(blobs).collect())
        };
        // Platform and annotations are the listing index's, not the document's own.
        let descriptor =
            Descriptor::new(descriptor.media_type.clone(), descriptor.digest.clone(), descriptor.size);
        Ok(Self { descriptor, bytes, kind })
    }

    /// The blobs that the document names, without manifests.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        fn blobs(manifest: &ImageManifest) -> Vec<&Descriptor> {
            [&manifest.config].into_iter().chain(&manifest.layers).collect()
        }
        match &self.kind {
            DocumentKind::Index(_) => Vec::new(),
            DocumentKind::Image(manifest) => blobs(manifest),
            DocumentKind::Soci(_, manifest) => blobs(manifest),
            DocumentKind::Other(blobs) => blobs.iter().collect(),
        }
    }
}
