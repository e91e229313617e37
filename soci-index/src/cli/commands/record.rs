//! `soci prefetch record`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::build::{RecordedError, create_recorded};
use crate::discover::Nearby;
use crate::image::{self, PlatformChoice};
use crate::manifest::IndexManifest;
use crate::oci::MAX_MANIFEST_SIZE;
use crate::prefetch::{MAX_PREFETCH_SIZE, PrefetchArtifact};
use crate::recording::Recording;
use crate::source::{ImageSource, SourceSpec};
use crate::store::Store;
use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use registry::{Client, Descriptor, Digest, Reference, Repository};
use serde_json::json;

use crate::cli::app::{App, client};
use crate::cli::args::{PrefetchRecordArgs, read_recording};

/// Where the snapshotter keeps recordings and zTOCs below its root directory.
const RECORDINGS: &str = "recordings";
const ZTOCS: &str = "ztocs";

pub(crate) async fn run(app: &App, args: PrefetchRecordArgs) -> anyhow::Result<()> {
    let source: Arc<dyn ImageSource> = match &args.image.spec {
        SourceSpec::Containerd(name) => Arc::new(app.of_containerd(name).await?.1),
        SourceSpec::Registry(_) => match app.in_containerd(&args.image, args.quiet || args.json).await? {
            Some((_, source)) => Arc::new(source),
            None => app.image(args.image.spec.clone(), &args.registry).await?,
        },
        other => bail!("containers are started of images in registries, not of {other}"),
    };
    let root = source.root().await?;
    let choice = args.platform.clone().map_or(PlatformChoice::Host, |one| PlatformChoice::These(vec![one]));
    let images = image::select(&*source, &root, &choice).await?;
    let Some(image) = images.first() else { bail!("the image has no such platform") };
    let directory = args.snapshotter_root.clone().unwrap_or_else(|| app.root().to_owned());
    let (path, recording) = recording(&directory, &image.descriptor.digest)?;
    let store = app.store()?;
    let places = Places { ztocs: directory.join(ZTOCS), registry: registry_of(&args, &recording)? };
    let base = places.index(&store, &recording.index).await?;
    if recording.reads.is_empty() && recording.unattributed.as_ref().is_some_and(|others| !others.is_empty())
    {
        bail!(
            "of no read in the recording {} is it known that the container made it: the snapshotter must see the processes of \
             containers, so it must run in the host's PID namespace (hostPID: true in Kubernetes)",
            path.display()
        );
    }
    let recording = Arc::new(recording);
    let created =
        create_recorded(&store, &recording, &base, (image, &root.digest, source.name()), &places).await;
    let created = match created {
        Err(error @ RecordedError::Version2(_)) => {
            return Err(anyhow::Error::new(error).context(format!(
                "prefetch artifacts cannot be added; convert the image again, with --prefetch-recording {}",
                path.display()
            )));
        }
        created => created?,
    };
    if !recording.cold {
        app.output.warn(format_args!(
            "the recorded start was not a cold one, and may lack what had been read before: remove the image and start it \
             again for one that is whole"
        ));
    }
    if recording.unattributed.is_none() {
        app.output.warn(
            "the recording was made by a version that did not tell readers apart, and may have what other containers read of the \
             same layers: remove the image and start it again for one of its own",
        );
    }
    let mut spans = 0;
    let mut layers = 0;
    for prefetch in created.manifest.prefetches() {
        let json = store.get(&prefetch.descriptor.digest, MAX_PREFETCH_SIZE).await?;
        spans += PrefetchArtifact::parse(&json)?.total_spans();
        layers += 1;
    }
    let index = &created.index.digest;
    if args.json {
        app.output.line(serde_json::to_string_pretty(&json!({
            "platform": created.platform.to_string(),
            "image": created.image.digest,
            "index": index,
            "size": created.index.size,
            "taken": recording.taken,
            "cold": recording.cold,
            "bytes": recording.bytes(),
            "spans": spans,
            "layers": layers,
        }))?)?;
    } else if args.quiet {
        app.output.line(index)?;
    } else {
        app.output.line(format_args!(
            "soci index {index} for {}: {spans} spans of {layers} layers are prefetched",
            created.platform
        ))?;
    }
    Ok(())
}

/// The recording of an image, and where it is.
fn recording(directory: &Path, manifest: &Digest) -> anyhow::Result<(PathBuf, Recording)> {
    let path = directory.join(RECORDINGS).join(format!("{}.json", manifest.hex()));
    if !path.exists() {
        bail!(
            "no start of image manifest {manifest} was recorded in {}: run the image there first, and wait until it has read \
             nothing for some seconds; --snapshotter-root names another root directory",
            directory.display()
        );
    }
    let recording = read_recording(&path)?;
    if recording.manifest != *manifest {
        bail!("{} is the recording of another image, {}", path.display(), recording.manifest);
    }
    Ok((path, recording))
}

/// The registry that the image was pulled from, or that the user names.
fn registry_of(
    args: &PrefetchRecordArgs,
    recording: &Recording,
) -> anyhow::Result<Option<(Client, Repository)>> {
    let reference = match &args.image.spec {
        SourceSpec::Registry(reference) => Some(reference.clone()),
        _ => recording.image.parse::<Reference>().ok(),
    };
    let registry = reference.map(|reference| {
        let client = client(&args.registry, reference.registry())?;
        anyhow::Ok((client, reference.repository().clone()))
    });
    registry.transpose()
}

/// Where the parts of an index may be, beside the store.
struct Places {
    /// zTOCs of the layers that the snapshotter serves.
    ztocs: PathBuf,
    registry: Option<(Client, Repository)>,
}

impl Places {
    async fn index(&self, store: &Store, digest: &Digest) -> anyhow::Result<IndexManifest> {
        if let Ok(index) = store.index(digest).await {
            return Ok(index);
        }
        let Some((client, repository)) = &self.registry else {
            bail!("SOCI index {digest}, which the recording was taken with, is not in the artifact store");
        };
        let json = client.manifest_in(repository, digest).await;
        let json =
            json.with_context(|| format!("cannot read SOCI index {digest}, with which the image was read"))?;
        if json.bytes.len() as u64 > MAX_MANIFEST_SIZE {
            bail!("SOCI index {digest} is too large");
        }
        Ok(IndexManifest::parse(&json.bytes)?)
    }
}

#[async_trait]
impl Nearby for Places {
    async fn get(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        let path = self.ztocs.join(digest.hex());
        let local = tokio::fs::metadata(&path).await.is_ok_and(|file| file.is_file() && file.len() <= limit);
        if local
            && let Ok(bytes) = tokio::fs::read(&path).await
            && Digest::of(&bytes) == *digest
        {
            return Some(bytes.into());
        }
        let (client, repository) = self.registry.as_ref()?;
        let blob = Descriptor::new("", digest.clone(), limit);
        client.blob_bytes(repository, &blob, limit).await.inspect_err(|error| tracing::debug!(%error)).ok()
    }
}
