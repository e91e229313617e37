//! `soci convert`.

use std::path::Path;
use std::sync::Arc;

use crate::containerd::{Containerd, Lease};
use crate::convert::{self, Converted};
use crate::destination::{
    ArchiveDestination, ContainerdDestination, CopyProgress, DestinationSpec, ImageDestination,
    LayoutDestination, Listing, RegistryDestination,
};
use crate::registry_args::RegistryArgs;
use crate::source::{ImageSource, RegistrySource, SourceSpec, StandaloneSource};
use crate::store::Store;
use serde_json::json;

use crate::cli::app::{App, client};
use crate::cli::args::{ConvertArgs, Format, ImageArg};
use crate::cli::interrupt::interruptible;
use crate::cli::progress::{BuildView, CopyView};

pub(crate) async fn run(app: &App, args: ConvertArgs) -> anyhow::Result<()> {
    interruptible(async {
        if args.standalone { standalone(app, &args).await } else { between(app, &args).await }
    })
    .await
}

/// Paths in, paths out. The artifact store is not used, as there is no image name to know the artifacts by.
async fn standalone(app: &App, args: &ConvertArgs) -> anyhow::Result<()> {
    let source = Arc::new(StandaloneSource::open(Path::new(&args.source)).await?);
    let path = std::path::absolute(&args.destination)?;
    let destination: Box<dyn ImageDestination> = match args.format {
        Format::OciArchive => Box::new(ArchiveDestination::new(path, Listing::Only)?),
        Format::OciDir => {
            Box::new(LayoutDestination::new(path, Listing::Only, args.max_concurrent_copies.into())?)
        }
    };
    let scratch = tempfile::tempdir()?;
    let store = Store::open(scratch.path())?;
    convert(app, args, source, &*destination, &store).await
}

/// From any place that has images to any other.
async fn between(app: &App, args: &ConvertArgs) -> anyhow::Result<()> {
    let image: ImageArg = args.source.parse()?;
    let found = match &image.spec {
        SourceSpec::Containerd(name) => Some(app.of_containerd(name).await?),
        _ => app.in_containerd(&image, args.quiet || args.json).await?,
    };
    let destination = DestinationSpec::parse(&args.destination, &image.spec, found.is_some())?.absolute();
    let host = match &destination {
        DestinationSpec::Registry(reference) => Some(reference.registry().to_owned()),
        _ => None,
    };
    let (source_containerd, source): (Option<Containerd>, Arc<dyn ImageSource>) = match (found, image.spec) {
        (Some((containerd, source)), _) => (Some(containerd), Arc::new(source)),
        (None, SourceSpec::Registry(reference)) => {
            let registry = of_source(args, reference.registry(), host.as_deref());
            (None, Arc::new(RegistrySource::new(client(&registry, reference.registry())?, reference)))
        }
        (None, spec) => (None, app.image(spec, &args.registry).await?),
    };
    let store = app.store()?;
    let concurrent = usize::from(args.max_concurrent_copies);
    let destination: Box<dyn ImageDestination> = match destination {
        DestinationSpec::Registry(reference) => {
            let client = client(&args.registry, reference.registry())?;
            Box::new(RegistryDestination::new(client, reference, concurrent)?)
        }
        DestinationSpec::Layout(path, listing) => {
            Box::new(LayoutDestination::new(path, listing, concurrent)?)
        }
        DestinationSpec::Archive(path, listing) => Box::new(ArchiveDestination::new(path, listing)?),
        DestinationSpec::Containerd(name) => {
            let containerd = match source_containerd {
                Some(containerd) => containerd,
                None => app.containerd().await?,
            };
            // Until the name is there, the lease keeps what is written. Dropped with an interrupted run, it ends as well.
            let lease = containerd.lease().await?;
            let done = into_containerd(app, args, source, store, &lease, name).await;
            let released = lease.release().await;
            done?;
            return Ok(released?);
        }
    };
    convert(app, args, source, &*destination, &store).await
}

async fn into_containerd(
    app: &App,
    args: &ConvertArgs,
    source: Arc<dyn ImageSource>,
    store: Store,
    lease: &Lease,
    name: String,
) -> anyhow::Result<()> {
    let containerd = lease.containerd().clone();
    let store = if app.keeps_in_containerd() { store.writing_containerd(containerd.clone()) } else { store };
    let destination = ContainerdDestination::new(containerd, name, args.max_concurrent_copies.into());
    convert(app, args, source, &destination, &store).await
}

/// How the source's registry is reached: with the same settings, and with credentials of its own if it is another one.
fn of_source(args: &ConvertArgs, source: &str, destination: Option<&str>) -> RegistryArgs {
    let mut registry = args.registry.clone();
    if destination.is_some_and(|destination| destination != source) {
        registry.user.clone_from(&args.source_user);
        registry.password_stdin = false;
        registry.refresh = None;
    } else if args.source_user.is_some() {
        registry.user.clone_from(&args.source_user);
    }
    registry
}

/// Converts, and prints what came of it.
async fn convert(
    app: &App,
    args: &ConvertArgs,
    source: Arc<dyn ImageSource>,
    destination: &dyn ImageDestination,
    store: &Store,
) -> anyhow::Result<()> {
    let lines = !args.quiet && !args.json;
    let build_view = Arc::new(BuildView::new(Arc::clone(&app.output), lines));
    let copy_view = Arc::new(CopyView::new(&app.output));
    let copy_progress = Arc::clone(&copy_view) as Arc<dyn CopyProgress>;
    let (options, choice) = (args.build.options()?, args.platforms.choice());
    let converted =
        convert::convert(source, destination, store, &options, &choice, build_view, &copy_progress).await?;

    if !destination.may_be_partial() {
        for missing in &converted.missing {
            app.output.warn(format_args!(
                "{} is listed by the image and is not in {}; the converted image is without it",
                missing.digest, args.source
            ));
        }
    }
    if args.json {
        app.output.line(serde_json::to_string_pretty(&as_json(&converted))?)?;
    } else if args.quiet {
        app.output.line(&converted.root.digest)?;
    } else {
        for platform in &converted.platforms {
            app.output.line(super::create::in_words(&platform.index))?;
        }
        app.output.line(format_args!(
            "converted image {} with digest {}: {}",
            converted.name,
            converted.root.digest,
            copy_view.summary()
        ))?;
    }
    Ok(())
}

fn as_json(converted: &Converted) -> serde_json::Value {
    let platforms: Vec<serde_json::Value> = converted
        .platforms
        .iter()
        .map(|platform| {
            let mut index = super::create::as_json(&platform.index);
            if let Some(object) = index.as_object_mut() {
                object.insert("source_image".into(), json!(platform.index.image.digest));
                object.insert("image".into(), json!(platform.image));
            }
            index
        })
        .collect();
    json!({
        "name": converted.name,
        "digest": converted.root.digest,
        "size": converted.root.size,
        "platforms": platforms,
        "missing": converted.missing.iter().map(|entry| &entry.digest).collect::<Vec<_>>(),
    })
}
