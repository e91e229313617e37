//! `soci-snapshotter-grpc mount`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fuse_snapshotter::mount::{MountedImage, Options, Origin};
use serde_json::json;
use soci_index::image::PlatformChoice;
use soci_index::source::{ImageSource, LayoutSource, RegistrySource, SourceSpec};
use soci_index::store::{Store, default_root};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::MountArgs;

/// How often to look whether somebody else has unmounted the image.
const WATCH: Duration = Duration::from_millis(500);

pub(crate) async fn run(root: Option<PathBuf>, args: Box<MountArgs>) -> anyhow::Result<()> {
    // Before the mount, so that no signal finds it half made and leaves it behind.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let root = root.unwrap_or_else(default_root);
    let options = Options {
        lazy: !args.no_lazy,
        index: args.soci_index_digest.clone(),
        platform: args
            .platform
            .clone()
            .map_or(PlatformChoice::Host, |platform| PlatformChoice::These(vec![platform])),
        background: args.background,
        cache_size: args.cache_size.saturating_mul(1 << 20),
        allow_other: args.allow_other,
        root: root.clone(),
    };
    let origin = origin(&args, root)?;
    let mounting = MountedImage::mount(&origin, &args.directory, &options);
    let mounted = tokio::select! {
        mounted = mounting => mounted.with_context(|| format!("cannot mount {}", args.image))?,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    };
    let report = mounted.report();
    if args.json {
        say(&json!({
            "event": "mounted",
            "image": args.image.to_string(),
            "directory": args.directory,
            "seconds": report.seconds,
            "layers": report.layers.len(),
            "lazy_layers": report.lazy_layers(),
        }));
    } else {
        say(&format_args!(
            "mounted {} at {} in {:.2} s: {} of {} layers are read lazily",
            args.image,
            args.directory.display(),
            report.seconds,
            report.lazy_layers(),
            report.layers.len()
        ));
    }
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep(WATCH) => if mounted.is_finished() { break },
        }
    }
    let report = mounted.report();
    mounted.unmount();
    if args.json {
        let mut report = serde_json::to_value(&report)?;
        report["event"] = "unmounted".into();
        say(&report);
    } else {
        say(&report);
    }
    Ok(())
}

fn origin(args: &MountArgs, root: PathBuf) -> anyhow::Result<Origin> {
    let mut registry = None;
    let source: Arc<dyn ImageSource> = match args.image.clone() {
        SourceSpec::Registry(reference) => {
            let client = args
                .registry
                .client(reference.registry(), concat!("soci-snapshotter/", env!("CARGO_PKG_VERSION")))?;
            registry = Some((client.clone(), reference.repository().clone()));
            Arc::new(RegistrySource::new(client, reference))
        }
        SourceSpec::Layout(path, selector) => Arc::new(LayoutSource::directory(path, selector)?),
        SourceSpec::Archive(path, selector) => Arc::new(LayoutSource::archive(path, selector)?),
    };
    // Looking into the store is worth something only where `soci create` has made one.
    let store = root.join("content").is_dir().then(|| Store::open(root)).transpose()?;
    Ok(Origin { source, registry, store })
}

#[allow(clippy::print_stdout)]
fn say(text: &dyn std::fmt::Display) {
    println!("{text}");
}
