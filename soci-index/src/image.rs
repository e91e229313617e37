//! From the descriptor that a reference stands for to the image manifests of single platforms.

use std::collections::HashSet;

use registry::Descriptor;

use crate::manifest::{INDEX_V1, INDEX_V2};
use crate::oci::{self, DOCKER_CONFIG, IMAGE_CONFIG, ImageIndex};
use crate::platform::Platform;
use crate::source::{ImageSource, SourceError};

/// Annotation by which BuildKit marks attestation manifests.
const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// How deep indexes may be nested. Buildx writes one level below the root, nobody more.
pub(crate) const MAX_DEPTH: usize = 4;
/// How many manifests one image may have in all its indexes; the largest official images have about 30.
pub(crate) const MAX_MANIFESTS: usize = 1000;

/// Which platforms of an image are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlatformChoice {
    /// The host's; or, of an image that has one manifest only, that one.
    Host,
    /// Every one the image has.
    All,
    /// These, each of which has to be there.
    These(Vec<Platform>),
}

/// An image manifest and its platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformImage {
    /// Its platform.
    pub platform: Platform,
    /// Descriptor of the image manifest, as the image index lists it.
    pub descriptor: Descriptor,
}

/// The image manifests of `root` for the platforms that `choice` asks for, in the order of the image index (or, for
/// [`PlatformChoice::These`], in that order) and without duplicates.
///
/// Attestations (`unknown/unknown`) and SOCI indexes of converted images are no images and are passed over. Of several
/// manifests for one platform the first counts.
///
/// # Errors
/// When a document cannot be read, indexes are nested too deeply, or a platform is not there.
pub async fn select(
    source: &dyn ImageSource,
    root: &Descriptor,
    choice: &PlatformChoice,
) -> Result<Vec<PlatformImage>, SourceError> {
    let all = platforms(source, root).await?;
    let wanted = match choice {
        PlatformChoice::All => return if all.is_empty() { Err(unavailable("any", &all)) } else { Ok(all) },
        PlatformChoice::Host if !oci::is_index(root) && all.len() == 1 => return Ok(all),
        PlatformChoice::Host => vec![Platform::host()],
        PlatformChoice::These(wanted) => wanted.clone(),
    };
    let mut chosen: Vec<PlatformImage> = Vec::new();
    for platform in wanted {
        let image = all
            .iter()
            .find(|image| image.platform.matches(&platform))
            .ok_or_else(|| unavailable(&platform.to_string(), &all))?;
        if !chosen.contains(image) {
            chosen.push(image.clone());
        }
    }
    Ok(chosen)
}

fn unavailable(wanted: &str, all: &[PlatformImage]) -> SourceError {
    let available = match all {
        [] => "none".to_owned(),
        all => all.iter().map(|image| image.platform.to_string()).collect::<Vec<_>>().join(", "),
    };
    SourceError::Platform { wanted: wanted.to_owned(), available: crate::text::excerpt(&available) }
}

/// All image manifests of `root`, first one per platform.
async fn platforms(source: &dyn ImageSource, root: &Descriptor) -> Result<Vec<PlatformImage>, SourceError> {
    let mut found: Vec<PlatformImage> = Vec::new();
    let mut seen = HashSet::from([root.digest.clone()]);
    // A stack instead of recursion, the next entry to visit on top.
    let mut pending = vec![(root.clone(), 0)];
    while let Some((descriptor, depth)) = pending.pop() {
        if oci::is_index(&descriptor) {
            let bad = |reason: String| SourceError::Layout { path: source.name().into(), reason };
            if depth == MAX_DEPTH {
                return Err(bad(format!("image indexes are nested more than {MAX_DEPTH} deep")));
            }
            let json = source.manifest(&descriptor).await?;
            let index =
                ImageIndex::parse(&json).map_err(|error| SourceError::document(&descriptor, error))?;
            // The same manifest may stand for several platforms; an index that is listed twice adds nothing.
            let first = pending.len();
            for entry in index.manifests {
                if is_image(&entry) && (!oci::is_index(&entry) || seen.insert(entry.digest.clone())) {
                    pending.push((entry, depth + 1));
                }
            }
            if let Some(added) = pending.get_mut(first..) {
                added.reverse();
            }
            if seen.len() + pending.len() > MAX_MANIFESTS {
                return Err(bad(format!("more than {MAX_MANIFESTS} manifests in one image")));
            }
            continue;
        }
        if let Some(platform) = platform_of(source, &descriptor).await?
            && !found.iter().any(|image| image.platform.matches(&platform))
        {
            found.push(PlatformImage { platform, descriptor });
        }
    }
    Ok(found)
}

/// Whether an entry of an image index can lead to an image.
fn is_image(entry: &Descriptor) -> bool {
    let artifact = matches!(entry.artifact_type.as_deref(), Some(INDEX_V1 | INDEX_V2));
    let attestation = entry.annotations.contains_key(DOCKER_REFERENCE_TYPE)
        || entry.platform.as_ref().is_some_and(|platform| Platform::from(platform).is_unknown());
    !artifact && !attestation && (oci::is_index(entry) || oci::is_manifest(entry))
}

/// The platform that the index gives, else the one in the configuration; `None` for a manifest that is no image.
async fn platform_of(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
) -> Result<Option<Platform>, SourceError> {
    if let Some(platform) = &descriptor.platform
        && !Platform::from(platform).is_empty()
    {
        return Ok(Some(platform.into()));
    }
    let config = source.image_manifest(descriptor).await?.config;
    if !matches!(config.media_type.as_str(), IMAGE_CONFIG | DOCKER_CONFIG) {
        return Ok(None);
    }
    Ok(Some((&source.image_config(&config).await?.platform).into()))
}
