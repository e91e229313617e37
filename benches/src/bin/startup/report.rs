//! What came out: for people a table, for machines JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::floor::{Floor, Local};
use crate::measure::Sample;
use crate::site::Check;
use crate::stats::percentile;

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Of this document; a field that is added does not change it.
    pub(crate) format: u32,
    pub(crate) machine: Machine,
    pub(crate) runs: usize,
    pub(crate) links: Vec<LinkReport>,
    pub(crate) images: Vec<ImageReport>,
    pub(crate) results: Vec<Group>,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    pub(crate) containerd: String,
    pub(crate) registry: String,
    pub(crate) soci: String,
}

/// A link.
#[derive(Debug, Serialize)]
pub(crate) struct LinkReport {
    pub(crate) profile: String,
    pub(crate) measured: Check,
}

/// An image.
#[derive(Debug, Serialize)]
pub(crate) struct ImageReport {
    pub(crate) name: String,
    /// Compressed, in bytes.
    pub(crate) size: u64,
    pub(crate) layers: Vec<LayerReport>,
    pub(crate) local: Local,
}

/// A layer, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct LayerReport {
    pub(crate) digest: String,
    pub(crate) compressed: u64,
    pub(crate) uncompressed: u64,
    pub(crate) spans: Option<usize>,
}

/// Starts of one image over one link.
#[derive(Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) image: String,
    pub(crate) profile: String,
    pub(crate) floor: Floor,
    pub(crate) variants: Vec<VariantReport>,
}

/// Starts in one way.
#[derive(Debug, Serialize)]
pub(crate) struct VariantReport {
    pub(crate) variant: String,
    pub(crate) median: Summary,
    pub(crate) samples: Vec<Sample>,
}

/// Medians, and the 90th percentile of the whole.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) pull: f64,
    pub(crate) run: f64,
    pub(crate) total: f64,
    pub(crate) total_p90: f64,
    /// Times the floor.
    pub(crate) multiple: f64,
    pub(crate) bytes: f64,
    pub(crate) requests: f64,
    pub(crate) cpu: f64,
    /// containerd's peak and the snapshotter's together, in bytes.
    pub(crate) memory: f64,
}

impl VariantReport {
    /// Sums up samples.
    pub(crate) fn new(variant: &str, floor: &Floor, samples: Vec<Sample>) -> Self {
        let of = |percent, value: &dyn Fn(&Sample) -> f64| {
            percentile(&samples.iter().map(value).collect::<Vec<_>>(), percent)
        };
        let median = Summary {
            pull: of(50, &|sample| sample.pull),
            run: of(50, &|sample| sample.run),
            total: of(50, &|sample| sample.total),
            total_p90: of(90, &|sample| sample.total),
            multiple: of(50, &|sample| floor.multiple(sample)),
            bytes: of(50, &|sample| sample.bytes as f64),
            requests: of(50, &|sample| sample.requests as f64),
            cpu: of(50, &|sample| sample.cpu),
            memory: of(50, &|sample| (sample.containerd_memory + sample.snapshotter_memory) as f64),
        };
        Self { variant: variant.into(), median, samples }
    }
}

impl Report {
    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        for link in &self.links {
            let rate = link
                .measured
                .megabits
                .map_or("too little to tell".into(), |rate| format!("{rate:.0} Mbit/s"));
            let _ = writeln!(
                text,
                "link {}: measured {:.2} ms to connect, {rate}",
                link.profile, link.measured.connect_ms
            );
        }
        for image in &self.images {
            let (local, size) = (&image.local, image.size as f64 / 1e6);
            let _ = writeln!(
                text,
                "image {}: {size:.0} MB in {} layers; a start reads {:.1} MB, in {} spans of {:.1} MB; index and zTOCs {:.1} MB",
                image.name,
                image.layers.len(),
                local.touched.bytes as f64 / 1e6,
                local.touched.spans,
                local.touched.span_bytes as f64 / 1e6,
                (local.ztoc_bytes + local.index_bytes) as f64 / 1e6,
            );
        }
        let _ = writeln!(
            text,
            "\n{:<10}{:<14}{:<12}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>6}{:>7}{:>8}",
            "IMAGE",
            "LINK",
            "VARIANT",
            "PULL s",
            "RUN s",
            "p50 s",
            "p90 s",
            "x FLOOR",
            "MB",
            "REQ",
            "CPU s",
            "MEM MB"
        );
        for group in &self.results {
            let (image, profile) = (&group.image, &group.profile);
            let floor = &group.floor;
            let _ = writeln!(
                text,
                "{image:<10}{profile:<14}{:<12}{:>8.2}{:>8.2}{:>8.2}{:>8}{:>9.2}{:>9.1}",
                "(floor)",
                floor.empty_pull,
                floor.total - floor.empty_pull,
                floor.total,
                "",
                1.0,
                floor.bytes as f64 / 1e6
            );
            for variant in &group.variants {
                let median = &variant.median;
                let _ = writeln!(
                    text,
                    "{image:<10}{profile:<14}{:<12}{:>8.2}{:>8.2}{:>8.2}{:>8.2}{:>9.2}{:>9.1}{:>6.0}{:>7.2}{:>8.0}",
                    variant.variant,
                    median.pull,
                    median.run,
                    median.total,
                    median.total_p90,
                    median.multiple,
                    median.bytes / 1e6,
                    median.requests,
                    median.cpu,
                    median.memory / 1e6
                );
            }
        }
        text
    }
}
