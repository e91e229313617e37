//! `soci pull`.

use std::sync::Arc;
use std::time::Instant;

use crate::pull::{self, LayerOutcome, PullOptions, Pulled};
use crate::source::RegistrySource;
use serde_json::json;

use crate::cli::app::{App, client};
use crate::cli::args::PullArgs;
use crate::cli::interrupt::interruptible;
use crate::cli::progress::PullView;

pub(crate) async fn run(app: &App, args: PullArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let containerd = app.containerd().await?;
    let source = RegistrySource::new(client(&args.registry, args.image.registry())?, args.image.clone());
    let options = PullOptions {
        platform: args.platform.clone(),
        index: args.soci_index_digest.clone(),
        concurrent_downloads: args.max_concurrent_downloads.into(),
        ..PullOptions::new(&args.snapshotter)
    };
    let lines = !args.quiet && !args.json;
    let view = Arc::new(PullView::new(Arc::clone(&app.output), lines));
    let work = async { Ok(pull::pull(&containerd, Arc::new(source), &options, view).await?) };
    let pulled = interruptible(work).await?;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        app.output.line(serde_json::to_string_pretty(&as_json(&pulled, &args.snapshotter, seconds))?)?;
    } else if args.quiet {
        app.output.line(&pulled.name)?;
    } else {
        app.output.line(format_args!(
            "pulled {} for {} into snapshotter {} in {seconds:.1} s: {}",
            pulled.name,
            pulled.platform,
            args.snapshotter,
            summary(&pulled)
        ))?;
    }
    Ok(())
}

/// `8 layers: 6 lazy, 2 downloaded`.
fn summary(pulled: &Pulled) -> String {
    let count = |wanted| pulled.layers.iter().filter(|layer| layer.outcome == wanted).count();
    let parts = [
        (LayerOutcome::Lazy, "lazy"),
        (LayerOutcome::Local, "unpacked by the snapshotter"),
        (LayerOutcome::Downloaded, "downloaded"),
        (LayerOutcome::Present, "there already"),
    ];
    let parts = parts.map(|(outcome, words)| (count(outcome), words));
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect();
    let layers = match pulled.layers.len() {
        1 => "1 layer".to_owned(),
        n => format!("{n} layers"),
    };
    if parts.is_empty() { layers } else { format!("{layers}: {}", parts.join(", ")) }
}

fn as_json(pulled: &Pulled, snapshotter: &str, seconds: f64) -> serde_json::Value {
    let layers: Vec<serde_json::Value> = pulled
        .layers
        .iter()
        .map(|layer| {
            json!({
                "digest": layer.digest,
                "size": layer.size,
                "chain_id": layer.chain_id,
                "outcome": layer.outcome.as_str(),
            })
        })
        .collect();
    json!({
        "image": pulled.name,
        "digest": pulled.target.digest,
        "platform": pulled.platform.to_string(),
        "manifest": pulled.manifest.digest,
        "snapshotter": snapshotter,
        "layers": layers,
        "seconds": seconds,
    })
}
