//! `soci prefetch list|info`.

use crate::canonical_json;
use crate::prefetch::{MAX_PREFETCH_SIZE, PrefetchArtifact};
use crate::store::{ArtifactKind, Record, Store};
use anyhow::bail;
use serde_json::json;

use super::index::{age, created};
use crate::cli::app::App;
use crate::cli::args::{PrefetchInfoArgs, PrefetchListArgs};
use crate::cli::table::Table;

pub(crate) async fn list(app: &App, args: PrefetchListArgs) -> anyhow::Result<()> {
    let store = app.store()?;
    let mut records = store.records().await?;
    records.retain(|record| record.kind == ArtifactKind::Prefetch);
    let mut rows = Vec::new();
    for record in records {
        // What cannot be read is listed all the same.
        let spans = load(&store, &record).await.ok().map(|artifact| artifact.total_spans());
        rows.push((record, spans));
    }
    if args.json {
        // Go encodes an empty list as null.
        let all: Vec<serde_json::Value> = rows
            .iter()
            .map(|(record, spans)| {
                json!({
                    "Digest": record.digest,
                    "LayerDigest": record.oci_digest,
                    "TotalSpans": spans.map_or(json!(-1), |spans| json!(spans)),
                    "CreatedAt": created_at(record).map_or_else(|| GO_ZERO_TIME.to_owned(), |time| time.to_string()),
                })
            })
            .collect();
        app.output.line(serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    let mut table = Table::new(&["DIGEST", "LAYER DIGEST", "SPANS", "CREATED"]);
    for (record, spans) in &rows {
        table.row(vec![
            record.digest.to_string(),
            record.oci_digest.to_string(),
            spans.map_or_else(|| "N/A".to_owned(), |spans| spans.to_string()),
            age(record),
        ]);
    }
    app.output.raw(table.render().as_bytes())?;
    Ok(())
}

/// How Go writes a time that is not set.
const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";

fn created_at(record: &Record) -> Option<jiff::Timestamp> {
    jiff::Timestamp::try_from(created(record)?).ok()
}

async fn load(store: &Store, record: &Record) -> anyhow::Result<PrefetchArtifact> {
    let json = store.get(&record.digest, MAX_PREFETCH_SIZE).await?;
    Ok(PrefetchArtifact::parse(&json)?)
}

pub(crate) async fn info(app: &App, args: PrefetchInfoArgs) -> anyhow::Result<()> {
    let store = app.store()?;
    let records = store.records().await?;
    let of_digest = |record: &&Record| record.digest == args.digest;
    if let Some(other) = records.iter().filter(of_digest).find(|record| record.kind != ArtifactKind::Prefetch)
    {
        let kind = if other.kind == ArtifactKind::Index { "soci_index" } else { "soci_layer" };
        bail!("the provided digest is not a prefetch artifact (type: {kind})");
    }
    let json = store.get(&args.digest, MAX_PREFETCH_SIZE).await?;
    let artifact = PrefetchArtifact::parse(&json)?;
    let mut text = format!(
        "Digest:        {}\nVersion:       {}\nSpan Ranges:   {}\n",
        args.digest,
        crate::prefetch::VERSION,
        artifact.ranges().len()
    );
    // One artifact may belong to several layers; the reference knows one of them.
    let mut of_layers = records.iter().filter(of_digest).peekable();
    if of_layers.peek().is_none() {
        text.push_str(
            "\nWarning: Prefetch artifact metadata not found in artifacts database.\nTry running 'soci rebuild-db' to sync \
             the metadata database with the content store.\n",
        );
    }
    for record in of_layers {
        let created = created_at(record).map_or_else(
            || "n/a".to_owned(),
            |time| {
                let here = time.to_zoned(jiff::tz::TimeZone::UTC);
                here.strftime("%Y-%m-%d %H:%M:%S").to_string()
            },
        );
        text.push_str(&format!(
            "Layer Digest:  {}\nSize:          {} bytes\nCreated:       {created}\n",
            record.oci_digest, record.size
        ));
    }
    text.push_str("\nPrefetch Spans:\n");
    for (at, range) in artifact.ranges().iter().enumerate() {
        let (start, end, count) = (range.start, range.end, range.count());
        text.push_str(&format!("  [{at}] StartSpan: {start}, EndSpan: {end} (covers {count} spans)\n"));
        if range.priority != 0 {
            text.push_str(&format!("      Priority: {}\n", range.priority));
        }
    }
    text.push_str(&format!("\nTotal spans to prefetch: {}\n", artifact.total_spans()));
    if args.json {
        text.push_str("\nRaw JSON:\n");
        text.push_str(&String::from_utf8_lossy(&canonical_json::indent(&artifact.encode())));
        text.push('\n');
    }
    app.output.raw(text.as_bytes())?;
    Ok(())
}
