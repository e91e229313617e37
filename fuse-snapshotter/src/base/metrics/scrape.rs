//! One reading of the metrics, and its text: Prometheus' exposition format 0.0.4.
//!
//! Series are kept by family and labels until the end: the format wants the lines of a family together, and no
//! series twice.

use std::collections::BTreeMap;
use std::fmt::Write;

use registry::{Digest, Stats};

use super::histogram::Snapshot;
use super::series::{self, Family, ImageOperation};

/// The values that are shown this time. If a series is set twice, the later value counts.
#[derive(Debug, Default)]
pub struct Scrape {
    families: BTreeMap<&'static str, (&'static Family, BTreeMap<String, Sample>)>,
}

#[derive(Debug)]
enum Sample {
    Number(u64),
    Histogram(Snapshot),
}

impl Scrape {
    /// A lazy layer that is mounted: its size and what was fetched of it, compressed, in bytes.
    pub fn layer_bytes(&mut self, digest: &Digest, mountpoint: &str, size: u64, fetched: u64) {
        self.set(&series::LAYER_SIZE, &[digest.as_str(), mountpoint], size);
        self.set(&series::LAYER_FETCHED, &[digest.as_str(), mountpoint], fetched);
    }

    /// Requests of the kernel for an image's files so far.
    pub fn image_operations(&mut self, image: &Digest, what: ImageOperation, count: u64) {
        self.set(&series::IMAGE_OPERATIONS, &[image.as_str(), what.name()], count);
    }

    /// How many layers are not fetched completely yet, while background fetch works on them.
    pub fn background_queue(&mut self, layers: u64) {
        self.set(&series::IMAGE_OPERATIONS, &["", series::BACKGROUND_QUEUE], layers);
    }

    /// Size of the cached contents of layers, its limit, and what of them is in memory only, in bytes.
    pub fn cache(&mut self, bytes: u64, limit: u64, in_memory: u64) {
        self.set(&series::CACHE_IN_MEMORY, &[], in_memory);
        self.set(&series::CACHE_BYTES, &[], bytes);
        self.set(&series::CACHE_LIMIT, &[], limit);
    }

    /// Spans, and their compressed bytes, that were fetched because they were known to be read.
    pub fn prefetched(&mut self, spans: u64, bytes: u64) {
        self.set(&series::PREFETCHED_SPANS, &[], spans);
        self.set(&series::PREFETCHED_BYTES, &[], bytes);
    }

    /// Number of snapshots of one kind, such as `active` or `committed`.
    pub fn snapshots(&mut self, kind: &str, count: u64) {
        self.set(&series::SNAPSHOTS, &[kind], count);
    }

    /// Counts of requests to registries so far.
    pub fn registry(&mut self, stats: &Stats) {
        self.set(&series::REGISTRY_REQUESTS, &[], stats.requests);
        self.set(&series::REGISTRY_RECEIVED, &[], stats.bytes_received);
        self.set(&series::REGISTRY_RETRIES, &[], stats.retries);
    }

    pub(super) fn build_info(&mut self) {
        self.set(&series::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
    }

    pub(super) fn set(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.insert(family, labels, Sample::Number(value));
    }

    pub(super) fn set_histogram(&mut self, family: &'static Family, labels: &[&str], value: Snapshot) {
        self.insert(family, labels, Sample::Histogram(value));
    }

    fn insert(&mut self, family: &'static Family, values: &[&str], sample: Sample) {
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        let mut labels = String::new();
        for (name, value) in family.labels.iter().zip(values) {
            if !labels.is_empty() {
                labels.push(',');
            }
            labels.push_str(name);
            labels.push_str("=\"");
            escape(value, &mut labels);
            labels.push('"');
        }
        let (_, samples) = self.families.entry(family.name).or_insert_with(|| (family, BTreeMap::new()));
        samples.insert(labels, sample);
    }

    /// The text, families and series in alphabetical order.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (name, (family, samples)) in &self.families {
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind.name());
            for (labels, sample) in samples {
                match sample {
                    Sample::Number(value) if labels.is_empty() => {
                        let _ = writeln!(text, "{name} {value}");
                    }
                    Sample::Number(value) => {
                        let _ = writeln!(text, "{name}{{{labels}}} {value}");
                    }
                    Sample::Histogram(histogram) => write_histogram(name, labels, histogram, &mut text),
                }
            }
        }
        text
    }
}

fn write_histogram(name: &str, labels: &str, histogram: &Snapshot, text: &mut String) {
    let last = histogram.cumulative.len().saturating_sub(1);
    for (bucket, count) in histogram.cumulative.iter().enumerate() {
        let bound = if bucket == last { "+Inf".to_owned() } else { (1_u64 << bucket).to_string() };
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
    }
    let count = histogram.cumulative.last().copied().unwrap_or(0);
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {count}", histogram.sum);
}

fn escape(value: &str, into: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            c => into.push(c),
        }
    }
}
