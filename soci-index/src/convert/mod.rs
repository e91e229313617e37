//! Converting an image into a SOCI-enabled one: image and indexes bound into one image index (index version 2).
//!
//! A version 2 index is part of the image: it stands in the image's own index, beside the manifest of its platform, and
//! each names the other. So it is copied, signed, retained and deleted with the image, and no registry needs a referrers
//! API. Image manifests change by one annotation, and so do their digests; layers and configurations stay as they are.
//!
//! The image is read from one place and written to another, or to a new name in the same place. Layers are taken over
//! within a registry, or pass through as a stream; only zTOCs are kept in the artifact store. What comes out depends on the
//! image and the options alone, and converting it again changes nothing.

mod documents;
mod rewrite;
mod source;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use registry::{Descriptor, Digest};

use crate::build::{BuildOptions, CreateError, CreatedIndex, Progress, Work};
use crate::destination::{CopyProgress, DestinationError, ImageDestination, Origin, Part, Shipment};
use crate::document::{Document, DocumentKind};
use crate::image::{self, PlatformChoice, PlatformImage};
use crate::manifest::{CONFIG_BLOB, IndexVersion};
use crate::oci;
use crate::platform::Platform;
use crate::source::{ImageSource, SourceError};
use crate::store::{Store, StoreError};
use documents::Documents;
use rewrite::{Binding, DOCKER_REFERENCE_DIGEST, Missing, Rewritten, rewrite};
use source::ReadSource;

/// A converted image.
#[derive(Debug, Clone)]
pub struct Converted {
    /// How it is called.
    pub name: String,
    /// Descriptor of its image index.
    pub root: Descriptor,
    /// The platforms that got an index.
    pub platforms: Vec<ConvertedPlatform>,
    /// What the image's indexes list and its source does not have. Where an image has to be complete, the converted one
    /// does not list it.
    pub missing: Vec<Descriptor>,
}

/// A platform of a converted image.
#[derive(Debug, Clone)]
pub struct ConvertedPlatform {
    /// The index that was built. Its `image` is the manifest in the source.
    pub index: CreatedIndex,
    /// Digest of the image manifest that the index is bound to now.
    pub image: Digest,
}

/// Why an image was not converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// An index could not be built.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The image could not be read, or is corrupt.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The converted image could not be written.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The artifact store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something failed that should not.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Builds a version 2 index for each platform that `choice` asks for, and writes the image with them to `destination`.
///
/// Layers that cannot be indexed, and platforms that get no index, are reported and stay as they are. So do SOCI indexes
/// of other platforms from an earlier conversion, attestations and everything else in the image.
///
/// # Errors
/// When the image cannot be read or its bytes do not match their digests, nothing could be indexed, or the result cannot be
/// written; see [`ConvertError`]. The destination's name then stands for what it stood for before.
pub async fn convert(
    source: Arc<dyn ImageSource>,
    destination: &dyn ImageDestination,
    store: &Store,
    options: &BuildOptions,
    choice: &PlatformChoice,
    build_progress: Arc<dyn Progress>,
    copy_progress: &Arc<dyn CopyProgress>,
) -> Result<Converted, ConvertError> {
    let root = source.root().await?;
    let documents = Arc::new(Documents::read(&*source, root.clone(), choice).await?);
    let source = Arc::new(ReadSource { inner: source, documents: Arc::clone(&documents) });
    let mut images = image::select(&*source, &root, choice).await?;
    if *choice == PlatformChoice::All {
        // Who asks for all platforms means those that are there.
        images.retain(|image| documents.get(&image.descriptor.digest).is_some());
    }
    let platforms = Platforms::read(&*source, &root, choice, &images).await?;

    // Until the records are there, nothing else protects the zTOCs from `soci index rm`.
    let _lease = store.lease().await?;
    let work = Work {
        source: Arc::clone(&source) as Arc<dyn ImageSource>,
        root: root.clone(),
        images,
        version: IndexVersion::V2,
        all: *choice == PlatformChoice::All,
    };
    let created = work.run(store, options, build_progress).await?;

    let partial = destination.may_be_partial();
    let bindings: Vec<Binding> = created
        .iter()
        .map(|index| Binding {
            image: index.image.digest.clone(),
            platform: platforms.of(index),
            index: index.manifest.clone(),
        })
        .collect();
    let only = created.first().map(|index| platforms.of(index));
    let missing = if partial { Missing::Keep } else { Missing::Drop };
    let rewritten = rewrite(&documents, &bindings, missing, only);
    let converted = describe(destination.name(), &documents, &rewritten, created)?;
    let shipment = ship(rewritten, &converted, partial, source, store)?;
    destination.write(&shipment, copy_progress).await?;

    let record = |platform: &ConvertedPlatform| {
        platform.index.record(options, &platform.image, &converted.root.digest, converted.name.clone())
    };
    store.record(converted.platforms.iter().map(record).collect()).await?;
    Ok(converted)
}

/// What the descriptors of SOCI indexes are to say about platforms. It is the platform in the form in which it was asked
/// for, since the reference has it so.
struct Platforms(Vec<(PlatformImage, registry::Platform)>);

impl Platforms {
    async fn read(
        source: &dyn ImageSource,
        root: &Descriptor,
        choice: &PlatformChoice,
        images: &[PlatformImage],
    ) -> Result<Self, SourceError> {
        let mut platforms = Vec::new();
        for image in images {
            let listed =
                image.descriptor.platform.as_ref().filter(|platform| !Platform::from(*platform).is_empty());
            let wanted = match choice {
                PlatformChoice::These(wanted) => wanted.iter().find(|wanted| wanted.matches(&image.platform)),
                _ => None,
            };
            let platform = match (choice, wanted, listed) {
                (_, Some(wanted), _) => wanted.to_descriptor(),
                (PlatformChoice::Host, ..) if oci::is_index(root) => Platform::host_descriptor(),
                (.., Some(listed)) => listed.clone(),
                (.., None) => {
                    let config = source.image_manifest(&image.descriptor).await?.config;
                    let platform = source.image_config(&config).await?.platform;
                    let normal = Platform::from(&platform).to_descriptor();
                    registry::Platform { os_features: platform.os_features, ..normal }
                }
            };
            platforms.push((image.clone(), platform));
        }
        Ok(Self(platforms))
    }

    fn of(&self, index: &CreatedIndex) -> registry::Platform {
        let same =
            |image: &PlatformImage| image.descriptor == index.image && image.platform == index.platform;
        let found = self.0.iter().find(|(image, _)| same(image));
        found.map_or_else(|| index.platform.to_descriptor(), |(_, platform)| platform.clone())
    }
}

fn describe(
    name: String,
    documents: &Documents,
    rewritten: &Rewritten,
    created: Vec<CreatedIndex>,
) -> Result<Converted, ConvertError> {
    let root = rewritten.documents.last().map(|root| root.descriptor.clone());
    let platforms = created
        .into_iter()
        .map(|index| {
            let image = rewritten.renamed.get(&index.image.digest).cloned();
            Some(ConvertedPlatform { image: image?, index })
        })
        .collect::<Option<Vec<_>>>();
    match (root, platforms) {
        (Some(root), Some(platforms)) => {
            Ok(Converted { name, root, platforms, missing: documents.missing.clone() })
        }
        _ => Err(ConvertError::Internal("an index was built for what is no image manifest".into())),
    }
}

/// Collects the blobs that the documents name.
fn ship(
    rewritten: Rewritten,
    converted: &Converted,
    partial: bool,
    source: Arc<ReadSource>,
    store: &Store,
) -> Result<Shipment, ConvertError> {
    let Rewritten { mut documents, .. } = rewritten;
    if partial {
        keep_asked_for(&mut documents, converted);
    }
    let root = documents.pop().ok_or_else(|| ConvertError::Internal("there is no root".into()))?;
    let new_indexes: HashSet<&Digest> =
        converted.platforms.iter().map(|platform| &platform.index.index.digest).collect();
    let config = Digest::of(CONFIG_BLOB);
    let mut parts = Vec::new();
    let mut seen = HashSet::new();
    for document in &documents {
        let digest = &document.descriptor.digest;
        for blob in document.blobs() {
            if is_elsewhere(blob, document) || !seen.insert(blob.digest.clone()) {
                continue;
            }
            let origin = if blob.digest == config && blob.size == CONFIG_BLOB.len() as u64 {
                Origin::Inline(Bytes::from_static(CONFIG_BLOB))
            } else if new_indexes.contains(digest) {
                Origin::Store
            } else {
                Origin::Source
            };
            // What the place of a layer is does not matter to where it goes.
            let blob = Descriptor::new(blob.media_type.clone(), blob.digest.clone(), blob.size);
            parts.push(Part { blob, origin });
        }
    }
    Ok(Shipment { parts, documents, root, source, store: store.clone() })
}

/// Takes out what nobody asked for: a document without its blobs would look as if it were complete. Image indexes stay, and
/// what is about the images that were asked for, such as attestations.
fn keep_asked_for(documents: &mut Vec<Document>, converted: &Converted) {
    let mut wanted: HashSet<Digest> = converted
        .platforms
        .iter()
        .flat_map(|platform| [platform.image.clone(), platform.index.index.digest.clone()])
        .collect();
    let about = |entry: &Descriptor| entry.annotations.get(DOCKER_REFERENCE_DIGEST)?.parse::<Digest>().ok();
    let attached: Vec<Digest> = documents
        .iter()
        .filter_map(|document| match &document.kind {
            DocumentKind::Index(index) => Some(&index.manifests),
            _ => None,
        })
        .flatten()
        .filter(|entry| about(entry).is_some_and(|image| wanted.contains(&image)))
        .map(|entry| entry.digest.clone())
        .collect();
    wanted.extend(attached);
    documents.retain(|document| {
        matches!(document.kind, DocumentKind::Index(_)) || wanted.contains(&document.descriptor.digest)
    });
}

/// Whether a blob is not in registries: a layer that may not be distributed, and is fetched from where its URLs say.
fn is_elsewhere(blob: &Descriptor, document: &Document) -> bool {
    matches!(document.kind, DocumentKind::Image(_))
        && !blob.urls.is_empty()
        && (blob.media_type.contains(".foreign.") || blob.media_type.contains(".nondistributable."))
}
