//! `soci ztoc list|build|info|get-file`.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::build::{BuildOptions, build_file, store_ztoc};
use crate::canonical_json::{self, Encoder};
use crate::extract;
use crate::manifest::{MAX_ZTOC_SIZE, ZTOC};
use crate::registry_args::RegistryArgs;
use crate::source::ImageSource;
use crate::store::{ArtifactKind, Record, Store};
use anyhow::{Context, bail};
use registry::{BlobReader, Descriptor, Digest, FileBlob};
use serde_json::json;
use ztoc::Ztoc;

use crate::cli::app::{App, names_image};
use crate::cli::args::{GetFileArgs, ImageArg, ZtocArg, ZtocBuildArgs, ZtocInfoArgs, ZtocListArgs};
use crate::cli::output::Output;
use crate::cli::table::Table;

pub(crate) async fn list(app: &App, args: ZtocListArgs) -> anyhow::Result<()> {
    let store = app.store()?;
    let mut records = store.records().await?;
    let of_image = match &args.image_ref {
        Some(image) => Some(ztocs_of(&store, &records, image).await?),
        None => None,
    };
    records.retain(|record| {
        record.kind == ArtifactKind::Layer
            && args.ztoc_digest.as_ref().is_none_or(|wanted| record.digest == *wanted)
            && of_image.as_ref().is_none_or(|ztocs| ztocs.contains(&record.digest))
    });
    if args.quiet {
        let digests: BTreeSet<&Digest> = records.iter().map(|record| &record.digest).collect();
        for digest in digests {
            app.output.line(digest)?;
        }
    } else if args.json {
        let all: Vec<serde_json::Value> = records
            .iter()
            .map(|record| {
                json!({
                    "digest": record.digest,
                    "size": record.size,
                    "layer_digest": record.oci_digest,
                    "span_size": record.span_size,
                    "build_tool": record.tool,
                })
            })
            .collect();
        app.output.line(serde_json::to_string_pretty(&all)?)?;
    } else {
        let mut table = Table::new(&["DIGEST", "SIZE", "LAYER DIGEST"]);
        for record in &records {
            table.row(vec![
                record.digest.to_string(),
                record.size.to_string(),
                record.oci_digest.to_string(),
            ]);
        }
        app.output.raw(table.render().as_bytes())?;
    }
    Ok(())
}

/// The zTOCs in all indexes of an image.
async fn ztocs_of(store: &Store, records: &[Record], image: &str) -> anyhow::Result<BTreeSet<Digest>> {
    let indexes = records
        .iter()
        .filter(|record| record.kind == ArtifactKind::Index && names_image(&record.image_ref, image));
    let mut found = BTreeSet::new();
    let mut known = false;
    for record in indexes {
        known = true;
        let index = store.index(&record.digest).await?;
        found.extend(index.ztocs().map(|ztoc| ztoc.descriptor.digest.clone()));
    }
    if !known {
        bail!("no SOCI index of {image} in the store; `soci index list` shows what there is");
    }
    Ok(found)
}

/// Reads a zTOC from the store.
async fn load(store: &Store, records: &[Record], digest: &Digest) -> anyhow::Result<Ztoc> {
    if records.iter().any(|record| record.digest == *digest && record.kind == ArtifactKind::Index) {
        bail!("the provided digest belongs to a SOCI index. Use \"soci index info\" to get detailed info");
    }
    if records.iter().any(|record| record.digest == *digest && record.kind == ArtifactKind::Prefetch) {
        bail!("the provided digest belongs to a prefetch artifact. Use \"soci prefetch info\" to see it");
    }
    let bytes = store.get(digest, MAX_ZTOC_SIZE).await?;
    Ztoc::parse(bytes).with_context(|| format!("{digest}"))
}

/// Reads a zTOC from a file.
fn load_file(path: &Path) -> anyhow::Result<Ztoc> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_ZTOC_SIZE + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read the zTOC {}", path.display()))?;
    if bytes.len() as u64 > MAX_ZTOC_SIZE {
        bail!("{} has more than {MAX_ZTOC_SIZE} bytes: too large for a zTOC", path.display());
    }
    Ztoc::parse(bytes.into()).with_context(|| path.display().to_string())
}

/// A file that everybody may read.
fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path);
    Ok(BufWriter::new(file.with_context(|| format!("cannot write {}", path.display()))?))
}

/// Ends a file. Some file systems report a full disk only now.
fn finish(file: BufWriter<File>, path: &Path) -> anyhow::Result<()> {
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
    // A pipe or a terminal has nothing to sync.
    let sync = |file: File| if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) };
    file.and_then(sync).with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) async fn build(app: &App, args: ZtocBuildArgs) -> anyhow::Result<()> {
    let options = BuildOptions { span_size: args.span_size, ..BuildOptions::default() };
    let (layer, build_options) = (args.layer.clone(), options.clone());
    let built = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let shown = layer.display().to_string();
        let mut layer: Box<dyn Read> = if layer == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(File::open(&layer).with_context(|| format!("cannot read the layer {shown}"))?)
        };
        build_file(&mut *layer, &build_options).context(shown)
    });
    let (built, compression) = built.await??;
    let digest = match &args.output {
        Some(path) => {
            let mut file = create(path)?;
            file.write_all(&built.bytes).with_context(|| format!("cannot write {}", path.display()))?;
            finish(file, path)?;
            Digest::from_sha256(&built.digest.0)
        }
        None => store_ztoc(&app.store()?, &built, compression, &options).await?,
    };
    if !args.json {
        app.output.line(digest)?;
        return Ok(());
    }
    let result = json!({
        "digest": digest,
        "size": built.bytes.len(),
        "layer_digest": Digest::from_sha256(&built.blob_digest.0),
        "layer_size": built.blob_size,
        "span_size": args.span_size,
        "num_spans": built.spans,
        "num_files": built.entries,
    });
    app.output.line(serde_json::to_string_pretty(&result)?)?;
    Ok(())
}

pub(crate) async fn info(app: &App, args: ZtocInfoArgs) -> anyhow::Result<()> {
    let ztoc = match &args.ztoc {
        ZtocArg::Stored(digest) => {
            let store = app.store()?;
            load(&store, &store.records().await?, digest).await?
        }
        ZtocArg::File(path) => load_file(path)?,
    };
    let spans = ztoc.spans();
    // The reference takes the end as inclusive here.
    let range = |entry: &ztoc::EntryRef<'_>| {
        (spans.span_of(entry.offset), spans.span_of(entry.offset.saturating_add(entry.size)))
    };
    let multi_span =
        ztoc.entries().filter(|entry| matches!(range(entry), (start, end) if start != end)).count();
    let mut json = Encoder::new();
    json.object(|json| {
        json.key("version").string(ztoc.version());
        json.key("build_tool").string(ztoc.build_tool_identifier());
        json.key("size").integer(ztoc.bytes().len() as u64);
        json.key("span_size").integer(spans.span_size());
        json.key("num_spans").integer(spans.len() as u64);
        json.key("num_files").integer(ztoc.len() as u64);
        json.key("num_multi_span_files").integer(multi_span as u64);
        json.key("files").array(|json| {
            for entry in ztoc.entries() {
                let (start, end) = range(&entry);
                json.object(|json| {
                    json.key("filename").string(entry.name);
                    json.key("offset").integer(entry.offset);
                    json.key("size").integer(entry.size);
                    json.key("type").string(entry.kind.as_str());
                    json.key("start_span").integer(start as u64);
                    json.key("end_span").integer(end as u64);
                });
            }
        });
    });
    let mut text = canonical_json::indent(&json.into_bytes());
    text.push(b'\n');
    app.output.raw(&text)?;
    Ok(())
}

pub(crate) async fn get_file(app: &App, args: GetFileArgs) -> anyhow::Result<()> {
    // A zTOC file with a layer file needs no store.
    let (ztoc, places) = match &args.ztoc {
        ZtocArg::File(path) => (load_file(path)?, None),
        ZtocArg::Stored(digest) => {
            let store = app.store()?;
            let records = store.records().await?;
            (load(&store, &records, digest).await?, Some((digest, store, records)))
        }
    };
    let range = extract::find_file(&ztoc, args.file.as_bytes())?;
    if let Some(path) = &args.layer {
        // The digest is for messages; each span has one of its own, which is checked.
        let layer = FileBlob::open(path, Digest::of(ztoc.bytes()))?;
        return copy(app, &ztoc, range, &layer, args.output.as_deref()).await;
    }
    let Some((digest, store, records)) = places else {
        bail!("a zTOC does not say which layer it is for; give the layer's file with --layer");
    };
    let mut places = self::places(&store, &records, digest).await;
    if let Some(image) = &args.image {
        // The layer may be in another image than those it was found in.
        let layers: BTreeSet<Digest> = records
            .iter()
            .filter(|record| record.kind == ArtifactKind::Layer && record.digest == *digest)
            .map(|record| record.oci_digest.clone())
            .chain(places.into_iter().map(|(_, layer)| layer))
            .collect();
        places = layers.into_iter().map(|layer| (image.clone(), layer)).collect();
    }
    let mut failed =
        anyhow::anyhow!("the store does not know which image {digest} belongs to; give it with --image");
    for (image, layer) in places {
        let descriptor = Descriptor::new(ZTOC, layer, ztoc.compressed_size());
        match open(app, &args.registry, &image, &descriptor).await {
            Ok(reader) => return copy(app, &ztoc, range, &*reader, args.output.as_deref()).await,
            Err(error) => failed = error.context(format!("cannot read the layer from {}", image.spec)),
        }
    }
    Err(failed)
}

/// Writes a part of the uncompressed layer to a file, or to standard output.
async fn copy(
    app: &App,
    ztoc: &Ztoc,
    range: std::ops::Range<u64>,
    layer: &dyn BlobReader,
    output: Option<&Path>,
) -> anyhow::Result<()> {
    let Some(path) = output else {
        return Ok(extract::copy(ztoc, range, layer, &mut Stdout(&app.output)).await?);
    };
    let mut file = create(path)?;
    extract::copy(ztoc, range, layer, &mut file).await?;
    finish(file, path)
}

/// Opens a layer of an image: in containerd, if that has it, or where the image's name says.
async fn open(
    app: &App,
    registry: &RegistryArgs,
    image: &ImageArg,
    layer: &Descriptor,
) -> anyhow::Result<Arc<dyn BlobReader>> {
    if let Some((_, source)) = app.in_containerd(image, true).await?
        && let Ok(reader) = source.blob_reader(layer).await
    {
        return Ok(reader);
    }
    Ok(app.image(image.spec.clone(), registry).await?.blob_reader(layer).await?)
}

/// The images, with their layers, that a zTOC was built for.
async fn places(store: &Store, records: &[Record], ztoc: &Digest) -> Vec<(ImageArg, Digest)> {
    let mut places = Vec::new();
    for record in records.iter().filter(|record| record.kind == ArtifactKind::Index) {
        let (Ok(index), Ok(image)) =
            (store.index(&record.digest).await, record.image_ref.parse::<ImageArg>())
        else {
            continue;
        };
        for found in index.ztocs().filter(|found| found.descriptor.digest == *ztoc) {
            if let Ok(layer) = found.layer.parse() {
                places.push((image.clone(), layer));
            }
        }
    }
    places
}

/// Standard output as a writer.
struct Stdout<'a>(&'a Output);

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.raw(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
