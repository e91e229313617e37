//! Checking a SOCI index against its image, to the byte.
//!
//! A zTOC is right if it is what the layer gives: each layer is streamed once through a builder with the zTOC's own span
//! size and tool identifier, and the result compared. What has other bytes (another version or tool made it) is compared by
//! meaning: the entries one by one, and in a second pass over the layer every span, its digest, and what its checkpoint
//! decodes it to.
//!
//! Layers are checked in parallel, within the memory budget that builds have; nothing is kept.

mod compare;
mod layer;
mod locate;
mod spans;

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use registry::{Client, Descriptor, Digest, Repository};
use tokio::sync::Semaphore;

use crate::build::{DEFAULT_MEMORY, MemoryBudget, Progress};
use crate::discover::{DiscoverError, FoundIndex};
use crate::image::PlatformImage;
use crate::manifest::{IndexManifest, IndexVersion, PREFETCH};
use crate::oci::ImageManifest;
use crate::prefetch::MAX_PREFETCH_SIZE;
use crate::source::{ImageSource, SourceError};
use crate::store::Store;

/// How to verify.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The index to check, instead of the one that is found.
    pub index: Option<Digest>,
    /// Layers that are checked at the same time.
    pub parallel_layers: usize,
    /// Bytes that the layers in work may hold together, as in [`crate::build::BuildOptions`].
    pub memory: u64,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { index: None, parallel_layers: cores, memory: DEFAULT_MEMORY }
    }
}

/// Where an index was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Beside the image: the image names it, or it is among its referrers.
    Image,
    /// In the artifact store.
    Store,
}

/// What came of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The zTOC is, byte for byte, what the layer gives.
    Identical,
    /// It has other bytes and means the same.
    Equivalent,
    /// The index has no zTOC for it.
    NoZtoc,
    /// What is wrong, in words.
    Wrong(Vec<String>),
    /// Why the layer or its zTOC could not be read, so that nothing is known about them.
    Unchecked(String),
}

/// A layer, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerReport {
    /// The layer.
    pub layer: Descriptor,
    /// Its zTOC.
    pub ztoc: Option<Digest>,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The image manifest.
    pub image: Descriptor,
    /// Digest of the index manifest.
    pub index: Digest,
    /// Its version.
    pub version: IndexVersion,
    /// Where it was found.
    pub origin: Origin,
    /// What is wrong with the index itself.
    pub problems: Vec<String>,
    /// What of it could not be read, and why.
    pub unchecked: Vec<String>,
    /// The image's layers, lowest first.
    pub layers: Vec<LayerReport>,
}

impl Report {
    /// Whether everything was checked and nothing is wrong. Layers without a zTOC are no fault.
    pub fn is_ok(&self) -> bool {
        let is_right = |layer: &LayerReport| {
            matches!(layer.verdict, Verdict::Identical | Verdict::Equivalent | Verdict::NoZtoc)
        };
        self.problems.is_empty() && self.unchecked.is_empty() && self.layers.iter().all(is_right)
    }

    /// Whether something is wrong, whatever else could not be checked.
    pub fn is_wrong(&self) -> bool {
        let is_wrong = |layer: &LayerReport| matches!(layer.verdict, Verdict::Wrong(_));
        !self.problems.is_empty() || self.layers.iter().any(is_wrong)
    }
}

/// Why an index could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The image could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The index could not be looked for.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// There is none.
    #[error("{0} has no SOCI index, neither beside it nor in the artifact store")]
    NoIndex(Digest),
    /// The index asked for is not there.
    #[error("there is no SOCI index {0}, neither beside the image nor in the artifact store")]
    NoSuchIndex(Digest),
}

/// An image, and where to look for its index.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The image is read from here.
    pub source: &'a Arc<dyn ImageSource>,
    /// What the image's name stands for.
    pub root: &'a Descriptor,
    /// The manifest whose index is checked.
    pub image: &'a PlatformImage,
    /// Where zTOCs are that the artifact store does not have: the source, or the registry of an image in containerd.
    pub artifacts: &'a Arc<dyn ImageSource>,
    /// The registry, for an image in one.
    pub registry: Option<(&'a Client, &'a Repository)>,
    /// The artifact store.
    pub store: &'a Store,
}

/// Finds the index of an image manifest and checks it against the image.
///
/// Layer events tell how far it is: started, advanced, and at the end built (right) or failed.
///
/// # Errors
/// When there is no index, or image and index cannot be read. What is wrong with an index that can be read, and with a
/// layer, is in the report.
pub async fn verify(
    subject: Subject<'_>,
    options: &VerifyOptions,
    progress: Arc<dyn Progress>,
) -> Result<Report, VerifyError> {
    let manifest = subject.source.image_manifest(&subject.image.descriptor).await?;
    let (found, origin) = locate::locate(&subject, &manifest, options.index.as_ref()).await?;
    let context = layer::Context {
        source: Arc::clone(subject.source),
        artifacts: Arc::clone(subject.artifacts),
        store: subject.store.clone(),
        memory: MemoryBudget::new(options.memory),
        permits: Semaphore::new(options.parallel_layers.max(1)),
        progress,
    };
    let mut unchecked = Vec::new();
    let mut problems = of_manifest(&found, &manifest, &subject.image.descriptor);
    let layers: Vec<&Descriptor> =
        manifest.layers.iter().filter(|layer| layer.media_type != PREFETCH).collect();
    let checks = layers.iter().map(|&layer| context.check(layer, &found.manifest));
    let layers: Vec<(LayerReport, Option<usize>)> =
        futures::stream::iter(checks).buffered(options.parallel_layers.max(1) * 2).collect().await;
    for prefetch in found.manifest.prefetches() {
        let spans = layers.iter().find(|(report, _)| report.layer.digest.to_string() == prefetch.layer);
        let spans = spans.and_then(|(_, spans)| *spans);
        if let Err(trouble) = check_prefetch(&context, prefetch.descriptor, spans).await {
            let artifact = format!("prefetch artifact {}", prefetch.descriptor.digest);
            match trouble {
                Trouble::Wrong(problem) => problems.push(format!("{artifact}: {problem}")),
                Trouble::Unread(reason) => unchecked.push(format!("{artifact}: {reason}")),
            }
        }
    }
    Ok(Report {
        image: subject.image.descriptor.clone(),
        index: found.digest,
        version: found.manifest.version,
        origin,
        problems,
        unchecked,
        layers: layers.into_iter().map(|(report, _)| report).collect(),
    })
}

/// What is wrong with the index manifest.
fn of_manifest(found: &FoundIndex, image: &ImageManifest, descriptor: &Descriptor) -> Vec<String> {
    let index = &found.manifest;
    let mut problems = Vec::new();
    if index.encode() != found.bytes {
        problems.push(
            "its JSON is not in the canonical form; the snapshotter of awslabs/soci-snapshotter ignores it"
                .into(),
        );
    }
    if !found.bound {
        problems.push(match index.version {
            IndexVersion::V1 => format!("its subject is not this image, {}", descriptor.digest),
            IndexVersion::V2 => "the image does not name it".into(),
        });
    }
    match (&index.subject, index.version) {
        (Some(subject), IndexVersion::V1)
            if found.bound
                && (subject.size != descriptor.size || subject.media_type != descriptor.media_type) =>
        {
            problems.push("its subject has another size or media type than the image manifest".into());
        }
        (Some(_), IndexVersion::V2) => {
            problems.push("a version 2 index has no subject, and it has one".into())
        }
        _ => {}
    }
    problems.extend(strangers(index, image));
    problems
}

/// Descriptors that belong to no layer of the image, or to one that another descriptor has already.
fn strangers(index: &IndexManifest, image: &ImageManifest) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut problems = Vec::new();
    let ztocs = index.ztocs().map(|ztoc| (ztoc.descriptor, ztoc.layer));
    let prefetches = index.prefetches().map(|prefetch| (prefetch.descriptor, prefetch.layer));
    // By their digests: an index of a stranger may have tens of thousands.
    let named: HashMap<(&Digest, &str), &str> = ztocs
        .chain(prefetches)
        .map(|(descriptor, layer)| ((&descriptor.digest, descriptor.media_type.as_str()), layer))
        .collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for layer in &image.layers {
        *counts.entry(layer.digest.as_str()).or_default() += 1;
    }
    for blob in &index.blobs {
        let layer = named.get(&(&blob.digest, blob.media_type.as_str())).copied();
        let times = layer.and_then(|layer| counts.get(layer)).copied().unwrap_or(0);
        if times == 0 {
            let media_type = crate::text::excerpt(&blob.media_type);
            problems.push(format!("{} ({media_type}) belongs to no layer of this image", blob.digest));
        } else if !seen.insert((blob.media_type == PREFETCH, layer)) && times == 1 {
            problems.push(format!("{} is for a layer that another one is for already", blob.digest));
        }
    }
    problems
}

/// `spans` is the number of spans of the layer, if it has a zTOC that can be read.
async fn check_prefetch(
    context: &layer::Context,
    descriptor: &Descriptor,
    spans: Option<usize>,
) -> Result<(), Trouble> {
    let json = context.artifact(descriptor, MAX_PREFETCH_SIZE).await?;
    let artifact =
        crate::prefetch::PrefetchArtifact::parse(&json).map_err(|error| Trouble::Wrong(error.to_string()))?;
    let spans = spans.ok_or("its layer has no zTOC that can be read")?;
    artifact.check(spans).map_err(|error| Trouble::Wrong(error.to_string()))
}

/// Why something did not pass.
enum Trouble {
    /// It was read and is not what it should be.
    Wrong(String),
    /// It could not be read.
    Unread(String),
}

impl From<String> for Trouble {
    fn from(problem: String) -> Self {
        Self::Wrong(problem)
    }
}

impl From<&str> for Trouble {
    fn from(problem: &str) -> Self {
        Self::Wrong(problem.to_owned())
    }
}

impl Trouble {
    /// Of reading a layer, which the index is not to blame for.
    fn of_layer(error: &SourceError) -> Self {
        if error.is_corrupt() { Self::Wrong(error.to_string()) } else { Self::Unread(error.to_string()) }
    }

    /// Of reading what the index names, which should be there.
    fn of_artifact(error: &SourceError) -> Self {
        let problem = format!("it cannot be read: {error}");
        if error.is_corrupt() || error.is_missing() { Self::Wrong(problem) } else { Self::Unread(problem) }
    }
}
