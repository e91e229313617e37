//! `soci create`.

use std::sync::Arc;

use crate::build::{self, CreatedIndex};
use crate::containerd::{Containerd, ContainerdError, labels};
use crate::source::{ImageSource, SourceSpec};
use crate::store::Store;
use anyhow::{Context, bail};
use registry::Reference;
use serde_json::json;

use super::push;
use crate::cli::app::{App, client};
use crate::cli::args::CreateArgs;
use crate::cli::interrupt::interruptible;
use crate::cli::progress::BuildView;

pub(crate) async fn run(app: &App, args: CreateArgs) -> anyhow::Result<()> {
    let destination = destination(&args)?;
    let found = match &args.image.spec {
        SourceSpec::Containerd(name) => Some(app.of_containerd(name).await?),
        _ => app.in_containerd(&args.image, args.quiet).await?,
    };
    let store = app.store()?;
    let Some((containerd, source)) = found else {
        let source = app.image(args.image.spec.clone(), &args.registry).await?;
        build(app, &args, source, &store, destination.as_ref()).await?;
        return Ok(());
    };
    if !app.keeps_in_containerd() {
        build(app, &args, Arc::new(source), &store, destination.as_ref()).await?;
        return Ok(());
    }
    let work = async {
        // Until the labels are there, the lease keeps what is written. Dropped with an interrupted build, it ends as well.
        let lease = containerd.lease().await?;
        let name = source.image_name().to_owned();
        let store = store.writing_containerd(lease.containerd().clone());
        let created = build(app, &args, Arc::new(source), &store, destination.as_ref()).await;
        let labelled = match &created {
            Ok(created) => label_image(app, lease.containerd(), &name, created).await,
            Err(_) => Ok(()),
        };
        let released = lease.release().await;
        created?;
        labelled.context("the indexes are stored, but the image is not labelled with them")?;
        Ok(released?)
    };
    interruptible(work).await
}

/// Where the indexes are to be pushed.
fn destination(args: &CreateArgs) -> anyhow::Result<Option<Reference>> {
    let image = &args.image.spec;
    match (&args.push_to, args.push, image) {
        (Some(reference), _, _) => Ok(Some(reference.clone())),
        (None, false, _) => Ok(None),
        (None, true, SourceSpec::Registry(reference)) => Ok(Some(reference.clone())),
        (None, true, SourceSpec::Containerd(name)) if name.parse::<Reference>().is_ok() => {
            Ok(Some(name.parse()?))
        }
        (None, true, _) => {
            bail!(
                "--push needs an image in a registry; for {image} say where the same image is: --push-to REF"
            )
        }
    }
}

/// Makes containerd's record of the image keep its indexes, under the reference's name (which has room for one) and under
/// one for each. The image's manifests keep them already, so an image whose name was removed in the meantime is no more than
/// worth knowing.
async fn label_image(
    app: &App,
    containerd: &Containerd,
    name: &str,
    created: &[CreatedIndex],
) -> Result<(), ContainerdError> {
    let mut keep = labels::Labels::new();
    for index in created {
        let digest = &index.index.digest;
        keep.insert(labels::SOCI_INDEX.to_owned(), digest.to_string());
        keep.insert(labels::soci_index(digest), digest.to_string());
    }
    let image = containerd.image(name).await?;
    let labelled = match &image {
        Some(image) => containerd.label_image(image, keep).await,
        None => Ok(()),
    };
    let removed = image.is_none() || labelled.as_ref().is_err_and(ContainerdError::is_not_found);
    if removed {
        app.output.warn(format_args!("the indexes are stored, but containerd has no image {name} any more"));
        return Ok(());
    }
    labelled
}

/// Builds the indexes, pushes them if that is asked for, and prints what came of it.
async fn build(
    app: &App,
    args: &CreateArgs,
    source: Arc<dyn ImageSource>,
    store: &Store,
    destination: Option<&Reference>,
) -> anyhow::Result<Vec<CreatedIndex>> {
    let options = args.build.options()?;
    let lines = !args.quiet && !args.json;
    let view = Arc::new(BuildView::new(Arc::clone(&app.output), lines));
    let created = build::create(source, store, &options, &args.platforms.choice(), view).await?;

    if let Some(reference) = destination {
        let client = client(&args.registry, reference.registry())?;
        // stdout is the result's when it is to be read by a program.
        let quiet = !lines;
        for index in &created {
            let (image, index) = (&index.image.digest, &index.index.digest);
            push::one(app, &client, reference.repository(), store, image, index, &args.upload, quiet).await?;
        }
    }
    if args.json {
        let result: Vec<serde_json::Value> = created.iter().map(as_json).collect();
        app.output.line(serde_json::to_string_pretty(&result)?)?;
    }
    for index in &created {
        if args.quiet {
            app.output.line(&index.index.digest)?;
        } else if lines {
            app.output.line(in_words(index))?;
        }
    }
    Ok(created)
}

/// One index of the result, for people.
pub(super) fn in_words(index: &CreatedIndex) -> String {
    format!(
        "soci index {} for {}: {} of {} layers",
        index.index.digest,
        index.platform,
        index.manifest.ztocs().count(),
        index.layers
    )
}

/// One index of the result.
pub(super) fn as_json(index: &CreatedIndex) -> serde_json::Value {
    let failed: Vec<serde_json::Value> =
        index.failed.iter().map(|(layer, reason)| json!({"layer": layer, "reason": reason})).collect();
    json!({
        "platform": index.platform.to_string(),
        "image": index.image.digest,
        "index": index.index.digest,
        "size": index.index.size,
        "layers": index.layers,
        "ztocs": index.manifest.ztocs().count(),
        "failed": failed,
    })
}
