//! `soci index list|info|remove`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::canonical_json;
use crate::manifest::IndexVersion;
use crate::oci::MAX_MANIFEST_SIZE;
use crate::store::{ArtifactKind, Record};
use anyhow::bail;
use registry::Digest;
use serde_json::json;

use crate::cli::app::{App, names_image};
use crate::cli::args::{IndexInfoArgs, IndexListArgs, IndexRemoveArgs};
use crate::cli::table::{Table, go_duration};

pub(crate) async fn list(app: &App, args: IndexListArgs) -> anyhow::Result<()> {
    let mut records = app.store()?.records().await?;
    records.retain(|record| {
        let platform = || args.platform.iter().any(|wanted| wanted.to_string() == record.platform);
        record.kind == ArtifactKind::Index
            && args.r#ref.as_ref().is_none_or(|image| names_image(&record.image_ref, image))
            && (args.platform.is_empty() || platform())
    });
    records.sort_by(|a, b| {
        let newest = |record: &Record| std::cmp::Reverse((record.created_at, record.created_at_ns));
        newest(a).cmp(&newest(b)).then_with(|| (&a.digest, &a.image_ref).cmp(&(&b.digest, &b.image_ref)))
    });
    if args.quiet {
        let mut last = None;
        for record in &records {
            if last != Some(&record.digest) {
                app.output.line(&record.digest)?;
            }
            last = Some(&record.digest);
        }
        return Ok(());
    }
    if args.json {
        let all: Vec<serde_json::Value> = records.iter().map(as_json).collect();
        app.output.line(serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    let mut table =
        Table::new(&["DIGEST", "SIZE", "IMAGE REF", "PLATFORM", "MEDIA TYPE", "MANIFEST VERSION", "CREATED"]);
    for record in &records {
        table.row(vec![
            record.digest.to_string(),
            record.size.to_string(),
            crate::text::excerpt(&record.image_ref),
            record.platform.clone(),
            record.media_type.clone(),
            version(record),
            age(record),
        ]);
    }
    app.output.raw(table.render().as_bytes())?;
    Ok(())
}

fn version(record: &Record) -> String {
    IndexVersion::from_media_type(&record.artifact_type)
        .map(|version| version.to_string())
        .unwrap_or_default()
}

pub(super) fn created(record: &Record) -> Option<SystemTime> {
    let seconds = u64::try_from(record.created_at).ok().filter(|&seconds| seconds > 0)?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, record.created_at_ns.min(999_999_999)))
}

pub(super) fn age(record: &Record) -> String {
    match created(record) {
        Some(created) => format!("{} ago", go_duration(created.elapsed().unwrap_or_default())),
        None => "n/a".to_owned(),
    }
}

fn as_json(record: &Record) -> serde_json::Value {
    let created = jiff::Timestamp::from_second(record.created_at).ok().map(|time| time.to_string());
    json!({
        "digest": record.digest,
        "size": record.size,
        "image_ref": record.image_ref,
        "image_manifest": record.oci_digest,
        "image_digest": record.image_digest,
        "platform": record.platform,
        "media_type": record.media_type,
        "version": version(record),
        "span_size": record.span_size,
        "created_at": created,
    })
}

pub(crate) async fn info(app: &App, args: IndexInfoArgs) -> anyhow::Result<()> {
    let store = app.store()?;
    let records = store.records().await?;
    if records.iter().any(|record| record.digest == args.digest && record.kind == ArtifactKind::Layer) {
        bail!(
            "the provided digest is of ztoc not SOCI index. Use \"soci ztoc info\" command to get detailed info of ztoc"
        );
    }
    if records.iter().any(|record| record.digest == args.digest && record.kind == ArtifactKind::Prefetch) {
        bail!("the provided digest is of a prefetch artifact. Use \"soci prefetch info\"");
    }
    // Parsed to make sure that it is one; printed as it is.
    store.index(&args.digest).await?;
    let json = store.get(&args.digest, MAX_MANIFEST_SIZE).await?;
    let mut text = canonical_json::indent(&json);
    text.push(b'\n');
    app.output.raw(&text)?;
    Ok(())
}

pub(crate) async fn remove(app: &App, args: IndexRemoveArgs) -> anyhow::Result<()> {
    let store = app.store()?;
    let records = store.records().await?;
    let indexes = || records.iter().filter(|record| record.kind == ArtifactKind::Index);
    let removed = if let Some(image) = args.r#ref {
        if !indexes().any(|record| names_image(&record.image_ref, &image)) {
            bail!("no SOCI index of {image} in the store; `soci index list` shows what there is");
        }
        store.remove_indexes(move |record| names_image(&record.image_ref, &image)).await?
    } else {
        let missing: Vec<&Digest> =
            args.digests.iter().filter(|digest| !indexes().any(|record| record.digest == **digest)).collect();
        if let Some(digest) = missing.first() {
            bail!("{digest} is not a SOCI index in the store; nothing was removed");
        }
        let digests = args.digests;
        store.remove_indexes(move |record| digests.contains(&record.digest)).await?
    };
    tracing::debug!(?removed, "removed");
    if removed.shared {
        app.output.note(format_args!(
            "the blobs stay: {} holds the state of awslabs/soci-snapshotter too, which may name them",
            store.root().display()
        ));
    }
    Ok(())
}
