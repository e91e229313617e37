//! What a conversion changes in an image's documents, and what it leaves alone.
//!
//! Each image manifest that gets a SOCI index is written anew, as an OCI manifest in the canonical form, with an
//! annotation that names its index; the SOCI index stands beside it in the image index, with an annotation that names the
//! manifest. This is what the reference makes, to the byte. Where it goes on to rewrite everything else in the image (and
//! thereby breaks other platforms' indexes and attestations), everything else stays as it is here: what gets no index
//! keeps its bytes and its descriptor. Only an attestation's annotation follows the manifest that it is about.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use registry::{Descriptor, Digest};

use super::documents::Documents;
use crate::document::{Document, DocumentKind};
use crate::manifest::{IMAGE_MANIFEST_DIGEST, INDEX_DIGEST, INDEX_V2, IndexManifest};
use crate::oci::{IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, ImageIndex};
use crate::platform::Platform;

/// Annotation by which BuildKit says which image manifest an attestation is about.
pub(super) const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// A SOCI index for one image manifest.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    /// The image manifest, as it is in the source.
    pub(super) image: Digest,
    /// The platform that the SOCI index's descriptor names.
    pub(super) platform: registry::Platform,
    /// The SOCI index, version 2.
    pub(super) index: IndexManifest,
}

/// A converted image.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// Children before those that list them, the root last.
    pub(super) documents: Vec<Document>,
    /// New digests of the image manifests that got an index, by the old ones.
    pub(super) renamed: HashMap<Digest, Digest>,
}

/// Whether an index lists what the source does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It stays listed.
    Keep,
    /// It is taken off the list.
    Drop,
}

/// Binds SOCI indexes to the image that `source` describes. `platform` is that of an image of one manifest.
pub(super) fn rewrite(
    source: &Documents,
    bindings: &[Binding],
    missing: Missing,
    platform: Option<registry::Platform>,
) -> Rewritten {
    let mut rewriter =
        Rewriter { source, missing, renamed: HashMap::new(), made: HashMap::new(), nested: HashMap::new() };
    let added: Vec<Descriptor> = bindings.iter().filter_map(|binding| rewriter.bind(binding)).collect();
    let mut root = match source.get(&source.root.digest).map(|document| &document.kind) {
        Some(DocumentKind::Index(index)) => rewriter.index(index),
        _ => {
            let only = Descriptor { platform, ..source.root.clone() };
            ImageIndex { manifests: rewriter.entry(&only).into_iter().collect(), ..ImageIndex::default() }
        }
    };
    for index in added {
        match root.manifests.iter_mut().find(|entry| is_replaced(entry, &index)) {
            Some(entry) => *entry = index,
            None => root.manifests.push(index),
        }
    }
    let Rewriter { made, renamed, .. } = rewriter;
    let root = Document::new(IMAGE_INDEX, root.encode().into(), DocumentKind::Index(root.into()));
    let mut documents = Vec::new();
    collect(&root, &made, source, &mut HashSet::new(), &mut documents);
    Rewritten { documents, renamed }
}

/// Appends what `document` leads to, and then the document.
fn collect(
    document: &Document,
    made: &HashMap<Digest, Document>,
    source: &Documents,
    seen: &mut HashSet<Digest>,
    out: &mut Vec<Document>,
) {
    if !seen.insert(document.descriptor.digest.clone()) {
        return;
    }
    if let DocumentKind::Index(index) = &document.kind {
        // No deeper than the source, whose depth is limited.
        for entry in &index.manifests {
            if let Some(child) = made.get(&entry.digest).or_else(|| source.get(&entry.digest)) {
                collect(child, made, source, seen, out);
            }
        }
    }
    out.push(document.clone());
}

/// Whether an entry is an earlier SOCI index of the platform that `index` is for. Tools that copy images may have lost its
/// artifact type.
fn is_replaced(entry: &Descriptor, index: &Descriptor) -> bool {
    let is_index = entry.artifact_type.as_deref() == Some(INDEX_V2)
        || entry.annotations.contains_key(IMAGE_MANIFEST_DIGEST);
    let platforms = entry.platform.as_ref().zip(index.platform.as_ref());
    is_index && platforms.is_some_and(|(entry, index)| Platform::from(entry).matches(&Platform::from(index)))
}

struct Rewriter<'a> {
    source: &'a Documents,
    missing: Missing,
    renamed: HashMap<Digest, Digest>,
    made: HashMap<Digest, Document>,
    /// What became of indexes within the index, so that one that is listed many times is gone through once.
    nested: HashMap<Digest, Descriptor>,
}

impl Rewriter<'_> {
    fn make(&mut self, document: Document) -> Descriptor {
        let descriptor = document.descriptor.clone();
        self.made.insert(descriptor.digest.clone(), document);
        descriptor
    }

    /// Writes the image manifest of a binding anew and its SOCI index; returns the SOCI index's descriptor.
    fn bind(&mut self, binding: &Binding) -> Option<Descriptor> {
        let DocumentKind::Image(image) = &self.source.get(&binding.image)?.kind else { return None };
        let bytes = binding.index.encode();
        let mut index = Descriptor::of(IMAGE_MANIFEST, &bytes);

        let mut image = image.clone();
        IMAGE_MANIFEST.clone_into(&mut image.media_type);
        IMAGE_CONFIG.clone_into(&mut image.config.media_type);
        image.annotations.insert(INDEX_DIGEST.to_owned(), index.digest.to_string());
        let json = Bytes::from(image.encode());
        let image = self.make(Document::new(IMAGE_MANIFEST, json, DocumentKind::Image(image)));
        self.renamed.insert(binding.image.clone(), image.digest.clone());

        index.annotations.insert(IMAGE_MANIFEST_DIGEST.to_owned(), image.digest.to_string());
        index.platform = Some(binding.platform.clone());
        index.artifact_type = Some(INDEX_V2.to_owned());
        let kind = DocumentKind::soci(&bytes)?;
        self.make(Document::new(IMAGE_MANIFEST, bytes, kind));
        Some(index)
    }

    /// The index with what became of its entries.
    fn index(&mut self, index: &ImageIndex) -> ImageIndex {
        let manifests = index.manifests.iter().filter_map(|entry| self.entry(entry)).collect();
        ImageIndex { manifests, ..index.clone() }
    }

    /// What becomes of an entry of an index.
    fn entry(&mut self, entry: &Descriptor) -> Option<Descriptor> {
        let mut entry = entry.clone();
        if let Some(about) = entry.annotations.get_mut(DOCKER_REFERENCE_DIGEST)
            && let Some(new) = about.parse().ok().and_then(|old: Digest| self.renamed.get(&old))
        {
            *about = new.to_string();
        }
        if let Some(made) = self.renamed.get(&entry.digest).and_then(|new| self.made.get(new)) {
            entry.digest = made.descriptor.digest.clone();
            entry.size = made.descriptor.size;
            entry.media_type = made.descriptor.media_type.clone();
            // As the reference does it: what the list said is lost, what the manifest says is repeated.
            if let DocumentKind::Image(image) = &made.kind {
                entry.annotations = image.annotations.clone();
            }
            return Some(entry);
        }
        let Some(document) = self.source.get(&entry.digest) else {
            return (self.missing == Missing::Keep).then_some(entry);
        };
        if let DocumentKind::Index(nested) = &document.kind {
            let new = match self.nested.get(&entry.digest) {
                Some(known) => known.clone(),
                None => self.nested(document, nested),
            };
            (entry.digest, entry.size, entry.media_type) = (new.digest, new.size, new.media_type);
        }
        Some(entry)
    }

    /// Writes an index within the index anew if something in it has changed.
    fn nested(&mut self, document: &Document, index: &ImageIndex) -> Descriptor {
        let changed = self.index(index);
        let new = if changed == *index {
            document.descriptor.clone()
        } else {
            let json = Bytes::from(changed.encode());
            self.make(Document::new(IMAGE_INDEX, json, DocumentKind::Index(changed.into())))
        };
        self.nested.insert(document.descriptor.digest.clone(), new.clone());
        new
    }
}
