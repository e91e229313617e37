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
mod report;
mod spans;
mod subject;

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use registry::{Descriptor, Digest};
use tokio::sync::Semaphore;

use crate::build::{MemoryBudget, Progress};
use crate::discover::FoundIndex;
use crate::manifest::{IndexManifest, IndexVersion, PREFETCH};
use crate::oci::ImageManifest;
use crate::prefetch::MAX_PREFETCH_SIZE;
use report::Trouble;
pub use report::{LayerReport, Origin, Report, Verdict};
pub use subject::{Subject, VerifyError, VerifyOptions};

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
