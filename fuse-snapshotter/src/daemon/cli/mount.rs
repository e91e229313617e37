//! `soci-snapshotter-grpc mount`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use registry::Client;
use serde_json::json;
use soci_index::image::PlatformChoice;
use soci_index::source::{ImageSource, LayoutSource, RegistrySource, SourceSpec};
use soci_index::store::{Store, default_root};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::MountArgs;
use crate::image::ImageOrigin;
use crate::mount::{MountedImage, Options};

/// How often to look whether somebody else has unmounted the image.
const WATCH: Duration = Duration::from_millis(500);

pub(super) async fn run(root: Option<PathBuf>, args: Box<MountArgs>) -> anyhow::Result<()> {
    // Before the mount, so that no signal finds it half made and leaves it behind.
    let mut stop = StopSignals::new().context("cannot wait for signals")?;
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
        front: args.front.into(),
        root: root.clone(),
    };
    let origin = origin(&args, root)?;
    let mounting = MountedImage::mount(&origin, &args.directory, &options);
    let mounted = tokio::select! {
        mounted = mounting => mounted.with_context(|| format!("cannot mount {}", args.image))?,
        () = stop.wait() => anyhow::bail!("interrupted"),
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
            () = stop.wait() => break,
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

fn origin(args: &MountArgs, root: PathBuf) -> anyhow::Result<ImageOrigin> {
    let mut registry = None;
    let source: Arc<dyn ImageSource> = match args.image.clone() {
        SourceSpec::Registry(reference) => {
            let user_agent = concat!("soci-snapshotter/", env!("CARGO_PKG_VERSION"));
            let mut config = args.registry.client_config(reference.registry(), user_agent)?;
            config.read_retry.max_elapsed = Duration::from_secs(args.fetch_timeout);
            let client = Client::new(config)?;
            registry = Some((client.clone(), reference.repository().clone()));
            Arc::new(RegistrySource::new(client, reference))
        }
        SourceSpec::Layout(path, selector) => Arc::new(LayoutSource::directory(path, selector)?),
        SourceSpec::Archive(path, selector) => Arc::new(LayoutSource::archive(path, selector)?),
        SourceSpec::Containerd(_) => {
            anyhow::bail!(
                "what containerd has is no lazy image: mount it from its registry, a layout or an archive"
            )
        }
    };
    // Looking into the store is worth something only where `soci create` has made one.
    let store = root.join("content").is_dir().then(|| Store::open(root)).transpose()?;
    Ok(ImageOrigin { source, registry, store, local: Vec::new() })
}

/// Whatever tells a program in the foreground to end: Ctrl-C, SIGTERM, a closed terminal, Ctrl-\\.
struct StopSignals([Signal; 4]);

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

fn say(text: &dyn std::fmt::Display) {
    // Whoever read the first line may not care for the last one.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
