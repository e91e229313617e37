//! What a daemon is doing: for every image and layer, how it is served and why, and what was fetched of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use registry::Digest;
use serde::{Deserialize, Serialize};

use crate::base::text::{Size, percent};
use crate::foresight::recorded::{RecordingStatus, ReplaySource, ReplayStatus};
use crate::image::{Background, Served};
use crate::snapshotter::store::Kind;
use crate::snapshotter::{Record, SnapshotError, Snapshotter};

/// State of a daemon. As JSON it is what `soci-snapshotter-grpc status --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Root directory.
    pub root: std::path::PathBuf,
    /// Process id.
    pub pid: u32,
    /// Images, by name.
    pub images: Vec<ImageStatus>,
    /// Trees that are mounted.
    pub trees: usize,
    /// Containers' snapshots and views.
    pub active_snapshots: usize,
    /// Snapshots of layers.
    pub committed_snapshots: usize,
    /// Bytes in the cache.
    pub cache_used: u64,
    /// Why nothing can be read lazily on this machine, if so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub obstacle: Option<String>,
    /// What the kernel lacks that would make reading faster.
    #[serde(default)]
    pub kernel_lacks: Vec<String>,
}

/// State of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Reference that it was pulled by.
    pub image: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Digest of the SOCI index in use.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index: Option<Digest>,
    /// The image that this index belongs to, if the lazy layers were brought by another one that has them too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index_of: Option<String>,
    /// What is recorded of its start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recording: Option<RecordingStatus>,
    /// What was fetched ahead of its start, since it was pulled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prefetch: Option<ReplayStatus>,
    /// Its layers, bottom first.
    pub layers: Vec<LayerStatus>,
}

/// State of a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerStatus {
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// How it is served.
    #[serde(with = "mode")]
    pub mode: Served,
    /// Why it is not read lazily.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Size, compressed, in bytes; 0 if unknown.
    pub size: u64,
    /// Compressed bytes that this process has fetched of it; all of them once nothing is missing any more.
    pub fetched: u64,
    /// Bytes of its files that are in the cache.
    pub cached: u64,
    /// Spans that it has.
    pub spans: usize,
    /// Spans that this process has fetched.
    pub fetched_spans: u64,
    /// Ranged reads.
    pub requests: u64,
    /// The fetch in the background.
    pub background: Background,
    /// Spans that arrived damaged, and files whose headers contradict the zTOC.
    pub errors: u64,
    /// What reads wait for now, or what the last read that failed was told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
}

impl Snapshotter {
    /// The state of this snapshotter.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn status(self: &Arc<Self>) -> Result<Status, SnapshotError> {
        let snapshotter = Arc::clone(self);
        tokio::task::spawn_blocking(move || snapshotter.gather()).await?
    }

    fn gather(&self) -> Result<Status, SnapshotError> {
        let ids = self.store_ref().ids()?;
        let committed = ids.values().filter(|(_, kind)| *kind == Kind::Committed).count();
        let mut images: BTreeMap<(String, String), ImageStatus> = BTreeMap::new();
        for (key, _) in ids.values() {
            let snapshot = match self.store_ref().get_any(key) {
                Ok(snapshot) => snapshot,
                // Removed meanwhile.
                Err(_) => continue,
            };
            let own = snapshot.record.as_deref().and_then(|json| Record::decode(json, key));
            let Some(own) = own else { continue };
            let name = (own.image.clone(), own.manifest.to_string());
            let depth = snapshot.parents.len() + 1;
            if images.get(&name).is_some_and(|known| known.layers.len() >= depth) {
                continue;
            }
            let below = snapshot.parents.iter().rev().filter_map(Record::of);
            let records: Vec<_> = below.chain([own.clone()]).collect();
            // Where all its lazy layers came by other images, theirs is the one in use.
            let own_first = records.iter().rev().filter(|record| record.manifest == own.manifest);
            let others = records.iter().rev().filter(|record| record.manifest != own.manifest);
            let found = own_first.chain(others).find_map(|record| Some((record.index()?.clone(), record)));
            let index_of = found.as_ref().filter(|(_, record)| record.manifest != own.manifest);
            let index_of = index_of.map(|(_, record)| record.image.clone());
            let index = found.map(|(index, _)| index);
            let layers = records.iter().map(|record| self.layer_status(record)).collect();
            let (image, manifest) = (own.image, own.manifest);
            images.insert(
                name,
                ImageStatus { image, manifest, index, index_of, recording: None, prefetch: None, layers },
            );
        }
        for image in images.values_mut() {
            (image.recording, image.prefetch) = self.prefetch().status(&image.manifest);
        }
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            root: self.root().to_owned(),
            pid: std::process::id(),
            images: images.into_values().collect(),
            trees: self.trees().len(),
            active_snapshots: ids.len() - committed,
            committed_snapshots: committed,
            cache_used: self.cache().used(),
            obstacle: self.trees().failure(),
            kernel_lacks: self.trees().kernel_lacks(),
        })
    }

    fn layer_status(&self, record: &Record) -> LayerStatus {
        let (mode, reason) = record.mode.served();
        let mut status = LayerStatus {
            digest: record.layer.clone(),
            mode,
            reason: reason.map(str::to_owned),
            size: record.size,
            fetched: if mode == Served::Lazy { 0 } else { record.size },
            cached: 0,
            spans: 0,
            fetched_spans: 0,
            requests: 0,
            background: Background::Off,
            errors: 0,
            last_error: None,
        };
        if let Some(open) = record.lazy().and_then(|key| self.layers().get(&key)) {
            let stats = open.lazy().stats();
            status.fetched = open.lazy().fetched_size();
            status.cached = open.lazy().cached_bytes();
            status.spans = open.lazy().table().spans().len();
            status.fetched_spans = stats.fetched_spans;
            status.requests = stats.requests;
            status.errors = stats.corrupt_spans + stats.refused_entries;
            status.last_error = open.trouble();
            status.background = open.background();
        }
        status
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "soci-snapshotter-grpc {}, process {}, root {}",
            self.version,
            self.pid,
            self.root.display()
        )?;
        writeln!(
            f,
            "{} layers, {} containers and views, {} trees mounted, {} in the cache",
            self.committed_snapshots,
            self.active_snapshots,
            self.trees,
            Size(self.cache_used)
        )?;
        if let Some(obstacle) = &self.obstacle {
            writeln!(f, "nothing can be read lazily: {obstacle}")?;
        }
        if !self.kernel_lacks.is_empty() {
            writeln!(f, "the kernel lacks: {}", self.kernel_lacks.join(", "))?;
        }
        for image in &self.images {
            write!(f, "\n{image}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ImageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.image)?;
        writeln!(f, "  manifest {}", self.manifest)?;
        match &self.index {
            Some(index) => {
                let of = self
                    .index_of
                    .as_ref()
                    .map(|image| format!(", of {image}, which brought the lazy layers"));
                writeln!(f, "  SOCI index {index}{}", of.unwrap_or_default())?;
            }
            None => writeln!(f, "  no SOCI index in use")?,
        }
        if let Some(recording) = &self.recording {
            let (reads, size) = (recording.reads, Size(recording.bytes));
            match (recording.running, recording.cold) {
                (true, _) => writeln!(f, "  recording the start: {reads} reads of {size} so far")?,
                (false, true) => writeln!(f, "  start recorded: {reads} reads of {size}")?,
                (false, false) => writeln!(f, "  start recorded, not a cold one: {reads} reads of {size}")?,
            }
        }
        if let Some(prefetch) = &self.prefetch {
            let state = if prefetch.running { "prefetching" } else { "prefetched" };
            let source = match prefetch.source {
                ReplaySource::Recording => "as recorded",
                ReplaySource::Artifacts => "by the index's prefetch artifacts",
            };
            write!(f, "  {state} {source}: {} spans of {}", prefetch.spans, Size(prefetch.bytes))?;
            if prefetch.failed > 0 {
                write!(f, ", {} requests failed", prefetch.failed)?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "  {:<20}{:<12}{:>10}{:>10}{:>7}{:>12}  {:<11}ERRORS",
            "LAYER", "MODE", "SIZE", "FETCHED", "%", "SPANS", "BACKGROUND"
        )?;
        for layer in &self.layers {
            let mode = mode::word(layer.mode);
            write!(f, "  {:<20}{mode:<12}", format!("sha256:{:.12}", layer.digest.hex()))?;
            match layer.mode {
                Served::Lazy => {
                    let background = match layer.background {
                        Background::Off => "off",
                        Background::Running => "running",
                        Background::Done => "done",
                    };
                    write!(
                        f,
                        "{:>10}{:>10}{:>7.1}{:>12}  {background:<11}{}",
                        Size(layer.size),
                        Size(layer.fetched),
                        percent(layer.fetched, layer.size),
                        format!("{}/{}", layer.fetched_spans, layer.spans),
                        layer.errors
                    )?;
                }
                Served::Unpacked | Served::Copied => write!(f, "{:>10}", Size(layer.size))?,
                Served::Deferred => {}
            }
            if let Some(reason) = &layer.reason {
                write!(f, "  ({reason})")?;
            }
            writeln!(f)?;
            if let Some(error) = &layer.last_error {
                writeln!(f, "    last error: {error}")?;
            }
        }
        Ok(())
    }
}

/// The words that this output has for how a layer is served.
mod mode {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::image::Served;

    pub(super) fn word(served: Served) -> &'static str {
        match served {
            Served::Lazy => "lazy",
            Served::Unpacked => "eager",
            Served::Deferred => "containerd",
            Served::Copied => "copied",
        }
    }

    pub(super) fn serialize<S: Serializer>(served: &Served, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word(*served))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Served, D::Error> {
        let given = String::deserialize(deserializer)?;
        let all = [Served::Lazy, Served::Unpacked, Served::Deferred, Served::Copied];
        let unknown = || D::Error::custom(format!("unknown mode {given:?}"));
        all.into_iter().find(|served| word(*served) == given).ok_or_else(unknown)
    }
}
