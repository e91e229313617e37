//! `soci create`.

use std::sync::Arc;

use anyhow::bail;
use serde_json::json;
use soci_index::build::{self, BuildOptions, CreatedIndex};
use soci_index::source::SourceSpec;

use super::push;
use crate::app::{App, client};
use crate::args::{CreateArgs, Optimization};
use crate::progress::BuildView;

pub(crate) async fn run(app: &App, args: CreateArgs) -> anyhow::Result<()> {
    let destination = match (&args.push_to, args.push, &args.image) {
        (Some(reference), _, _) => Some(reference.clone()),
        (None, true, SourceSpec::Registry(reference)) => Some(reference.clone()),
        (None, true, _) => {
            bail!(
                "--push needs an image in a registry; for {} say where the same image is: --push-to REF",
                args.image
            )
        }
        (None, false, _) => None,
    };
    let store = app.store()?;
    let source = app.image(args.image.clone(), &args.registry)?;
    let options = BuildOptions {
        span_size: args.span_size,
        min_layer_size: args.min_layer_size,
        force: args.force,
        optimize_xattrs: args.optimizations.contains(&Optimization::Xattr),
        ..BuildOptions::default()
    };
    let lines = !args.quiet && !args.json;
    let view = Arc::new(BuildView::new(Arc::clone(&app.output), lines));
    let created = build::create(source, &store, &options, &args.platforms.choice(), view).await?;

    if let Some(reference) = destination {
        let client = client(&args.registry, reference.registry())?;
        // stdout is the result's when it is to be read by a program.
        let quiet = !lines;
        for index in &created {
            let (image, index) = (&index.image.digest, &index.index.digest);
            push::one(app, &client, reference.repository(), &store, image, index, &args.upload, quiet)
                .await?;
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
            app.output.line(format_args!(
                "soci index {} for {}: {} of {} layers",
                index.index.digest,
                index.platform,
                index.manifest.ztocs().count(),
                index.layers
            ))?;
        }
    }
    Ok(())
}

fn as_json(index: &CreatedIndex) -> serde_json::Value {
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
