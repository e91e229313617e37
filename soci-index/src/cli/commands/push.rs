//! `soci push`.

use crate::image;
use crate::push::{self, ExistingIndex, PushError, PushOptions};
use crate::source::{ImageSource, RegistrySource, SourceSpec};
use crate::store::{ArtifactKind, Record, Store};
use anyhow::{anyhow, bail};
use registry::{Client, Digest, Repository};

use crate::cli::app::{App, client};
use crate::cli::args::{Existing, PushArgs, UploadArgs};
use crate::cli::progress::PushView;

/// Which index of an image is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The newest.
    Newest,
    /// The newest that names prefetch artifacts.
    WithPrefetch,
}

pub(crate) async fn run(app: &App, args: PushArgs, which: Which) -> anyhow::Result<()> {
    if let Some(snapshotter) = &args.snapshotter {
        tracing::debug!(snapshotter, "--snapshotter does nothing");
    }
    let SourceSpec::Registry(reference) = args.image else {
        bail!("push takes the image's reference in a registry, not {}", args.image);
    };
    let store = app.store()?;
    let client = client(&args.registry, reference.registry())?;
    let source = RegistrySource::new(client.clone(), reference.clone());
    let root = source.root().await?;
    let images = image::select(&source, &root, &args.platforms.choice()).await?;
    let mut records = store.records().await?;
    if which == Which::WithPrefetch {
        records = with_prefetch(&store, records).await;
    }
    // Removals stay out until the last blob has been read.
    let _lease = store.lease().await?;
    let mut pushed = 0;
    for image in &images {
        let manifest = &image.descriptor.digest;
        let (newest, version_2) = push::newest_index(&records, manifest);
        if version_2 && !args.quiet {
            app.output.line(
                "[WARN] Skippping SOCI index manifest v2. You should push the whole image with higher level tools like \
                 finch or nerdctl.",
            )?;
        }
        let Some(record) = newest else {
            if args.platforms.all_platforms {
                app.output.warn(format_args!("platform {} has no SOCI index in the store", image.platform));
                continue;
            }
            return Err(none(which, manifest));
        };
        let repository = reference.repository();
        one(app, &client, repository, &store, manifest, &record.digest, &args.upload, args.quiet).await?;
        if args.quiet {
            app.output.line(&record.digest)?;
        }
        pushed += 1;
    }
    match images.first() {
        Some(image) if pushed == 0 => Err(none(which, &image.descriptor.digest)),
        _ => Ok(()),
    }
}

fn none(which: Which, image: &Digest) -> anyhow::Error {
    match which {
        Which::Newest => PushError::NoIndex(image.clone()).into(),
        Which::WithPrefetch => anyhow!(
            "no index with prefetch artifacts for image manifest {image} in the artifact store; run `soci prefetch \
             record` on a node that has run the image, or `soci create --prefetch-file`"
        ),
    }
}

/// The records of indexes that name prefetch artifacts. What cannot be read is not pushed.
async fn with_prefetch(store: &Store, records: Vec<Record>) -> Vec<Record> {
    let mut found = Vec::new();
    for record in records.into_iter().filter(|record| record.kind == ArtifactKind::Index) {
        let index = store.index(&record.digest).await;
        if index.is_ok_and(|index| index.prefetches().next().is_some()) {
            found.push(record);
        }
    }
    found
}

/// Pushes one index.
#[expect(clippy::too_many_arguments, reason = "all of them differ from index to index")]
pub(crate) async fn one(
    app: &App,
    client: &Client,
    repository: &Repository,
    store: &Store,
    image: &Digest,
    index: &Digest,
    upload: &UploadArgs,
    quiet: bool,
) -> anyhow::Result<()> {
    let options = PushOptions {
        existing: match upload.existing_index {
            Existing::Warn => ExistingIndex::Warn,
            Existing::Skip => ExistingIndex::Skip,
            Existing::Allow => ExistingIndex::Allow,
        },
        concurrent_uploads: upload.max_concurrent_uploads.into(),
    };
    let view = PushView { output: &app.output, image: image.clone(), quiet };
    push::push_index(client, repository, store, index, &options, &view).await?;
    Ok(())
}
