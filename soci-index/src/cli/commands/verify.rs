//! `soci verify`.

use std::sync::Arc;

use crate::image::{self, PlatformImage};
use crate::source::{ImageSource, LocalFirst, RegistrySource, SourceSpec};
use crate::verify::{self, Origin, Report, Subject, Verdict, VerifyError, VerifyOptions};
use anyhow::bail;
use registry::{Client, Reference, Repository};
use serde_json::json;

use crate::cli::app::{App, client};
use crate::cli::args::VerifyArgs;
use crate::cli::interrupt::interruptible;
use crate::cli::progress::BarsOnly;

pub(crate) async fn run(app: &App, args: VerifyArgs) -> anyhow::Result<()> {
    interruptible(all(app, args)).await
}

async fn all(app: &App, args: VerifyArgs) -> anyhow::Result<()> {
    let Sources { image: source, local_first, artifacts, registry } = sources(app, &args).await?;
    let store = app.store()?;
    let root = source.root().await?;
    let images = image::select(&*source, &root, &args.platforms.choice()).await?;
    let options =
        VerifyOptions { index: args.index.clone(), memory: args.max_memory, ..VerifyOptions::default() };
    let progress = Arc::new(BarsOnly::new(&app.output));
    let (mut wrong, mut unchecked) = (0, 0);
    let mut results = Vec::new();
    for image in &images {
        let subject = Subject {
            source: &source,
            artifacts: &artifacts,
            root: &root,
            image,
            registry: registry.as_ref().map(|(client, repository)| (client, repository)),
            store: &store,
        };
        match verify::verify(subject, &options, progress.clone()).await {
            Ok(report) => {
                wrong += usize::from(report.is_wrong());
                unchecked += usize::from(!report.is_ok() && !report.is_wrong());
                if args.json {
                    results.push(as_json(image, &report));
                } else {
                    print(app, image, &report, args.quiet)?;
                }
            }
            Err(error @ (VerifyError::NoIndex(_) | VerifyError::NoSuchIndex(_))) if images.len() > 1 => {
                wrong += 1;
                if args.json {
                    let platform = image.platform.to_string();
                    results.push(json!({"platform": platform, "ok": false, "problems": [error.to_string()]}));
                } else {
                    app.output.line(format_args!("{}: {error}", image.platform))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if args.json {
        app.output.line(serde_json::to_string_pretty(&results)?)?;
    }
    if local_first.is_some_and(|both| both.asked_registry()) && !args.quiet && !args.json {
        app.output.note(format_args!(
            "containerd does not have all of the image, as with lazy layers; the rest was read from its registry"
        ));
    }
    if wrong > 0 {
        bail!("{wrong} of {} platforms failed the check", images.len());
    }
    if unchecked > 0 {
        bail!("{unchecked} of {} platforms could not be checked", images.len());
    }
    Ok(())
}

/// Where an image and its index are read from.
struct Sources {
    image: Arc<dyn ImageSource>,
    /// The same, if it is in containerd and what is missing there comes from its registry.
    local_first: Option<Arc<LocalFirst>>,
    /// Where the index lies.
    artifacts: Arc<dyn ImageSource>,
    /// The image's repository, where an index is searched for.
    registry: Option<(Client, Repository)>,
}

async fn sources(app: &App, args: &VerifyArgs) -> anyhow::Result<Sources> {
    let in_containerd = match &args.image.spec {
        SourceSpec::Containerd(name) => Some(app.of_containerd(name).await?.1),
        _ => app.in_containerd(&args.image, args.quiet || args.json).await?.map(|(_, source)| source),
    };
    // What a lazy snapshotter never fetched is read from the registry.
    let mut local_first = None;
    let image: Arc<dyn ImageSource> = match in_containerd {
        Some(local) => match local.image_name().parse::<Reference>() {
            Ok(reference) => {
                let client = client(&args.registry, reference.registry())?;
                let both = Arc::new(LocalFirst::new(local, RegistrySource::new(client, reference)));
                local_first = Some(Arc::clone(&both));
                both
            }
            Err(_) => Arc::new(local),
        },
        None => app.image(args.image.spec.clone(), &args.registry).await?,
    };
    // The index of an image in containerd lies beside the image in its registry.
    let SourceSpec::Registry(reference) = &args.image.spec else {
        return Ok(Sources { artifacts: Arc::clone(&image), image, local_first, registry: None });
    };
    let client = client(&args.registry, reference.registry())?;
    let artifacts = Arc::new(RegistrySource::new(client.clone(), reference.clone()));
    Ok(Sources { image, local_first, artifacts, registry: Some((client, reference.repository().clone())) })
}

fn print(app: &App, image: &PlatformImage, report: &Report, quiet: bool) -> anyhow::Result<()> {
    let head = format!(
        "soci index {} ({}{}) for {}",
        report.index,
        report.version,
        if report.origin == Origin::Store { ", from the artifact store" } else { "" },
        image.platform
    );
    if !quiet || !report.is_ok() {
        app.output.line(&head)?;
    }
    for problem in &report.problems {
        app.output.line(format_args!("  WRONG: {problem}"))?;
    }
    for reason in &report.unchecked {
        app.output.line(format_args!("  could not be checked: {reason}"))?;
    }
    for layer in &report.layers {
        let digest = &layer.layer.digest;
        let ztoc = layer.ztoc.as_ref().map(|ztoc| format!(" -> ztoc {ztoc}")).unwrap_or_default();
        match &layer.verdict {
            Verdict::Wrong(problems) => {
                for problem in problems {
                    app.output.line(format_args!("  layer {digest}{ztoc} WRONG: {problem}"))?;
                }
            }
            Verdict::Unchecked(reason) => {
                app.output.line(format_args!("  layer {digest}{ztoc} could not be checked: {reason}"))?;
            }
            _ if quiet => {}
            Verdict::Identical => app.output.line(format_args!("  layer {digest}{ztoc} ok"))?,
            Verdict::Equivalent => app.output.line(format_args!(
                "  layer {digest}{ztoc} ok: not the bytes that this program writes, but the same meaning"
            ))?,
            Verdict::NoZtoc => app.output.line(format_args!("  layer {digest} has no ztoc"))?,
        }
    }
    Ok(())
}

fn as_json(image: &PlatformImage, report: &Report) -> serde_json::Value {
    let layers: Vec<serde_json::Value> = report
        .layers
        .iter()
        .map(|layer| {
            let (result, problems) = match &layer.verdict {
                Verdict::Identical => ("identical", &[][..]),
                Verdict::Equivalent => ("equivalent", &[][..]),
                Verdict::NoZtoc => ("no ztoc", &[][..]),
                Verdict::Wrong(problems) => ("wrong", problems.as_slice()),
                Verdict::Unchecked(reason) => ("unchecked", std::slice::from_ref(reason)),
            };
            json!({"layer": layer.layer.digest, "ztoc": layer.ztoc, "result": result, "problems": problems})
        })
        .collect();
    json!({
        "platform": image.platform.to_string(),
        "image": report.image.digest,
        "index": report.index,
        "version": report.version.to_string(),
        "origin": if report.origin == Origin::Store { "store" } else { "image" },
        "ok": report.is_ok(),
        "problems": report.problems,
        "unchecked": report.unchecked,
        "layers": layers,
    })
}
