//! `soci push`.

use anyhow::bail;
use registry::{Client, Digest, Repository};
use soci_index::image;
use soci_index::push::{self, ExistingIndex, PushError, PushOptions};
use soci_index::source::{ImageSource, RegistrySource, SourceSpec};
use soci_index::store::Store;

use crate::app::{App, client};
use crate::args::{Existing, PushArgs, UploadArgs};
use crate::progress::PushView;

pub(crate) async fn run(app: &App, args: PushArgs) -> anyhow::Result<()> {
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
    let records = store.records().await?;
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
            return Err(PushError::NoIndex(manifest.clone()).into());
        };
        let repository = reference.repository();
        one(app, &client, repository, &store, manifest, &record.digest, &args.upload, args.quiet).await?;
        if args.quiet {
            app.output.line(&record.digest)?;
        }
        pushed += 1;
    }
    match images.first() {
        Some(image) if pushed == 0 => Err(PushError::NoIndex(image.descriptor.digest.clone()).into()),
        _ => Ok(()),
    }
}

/// Pushes one index.
#[allow(clippy::too_many_arguments)]
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
